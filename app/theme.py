"""The page's looks: a Gradio theme, the style sheet and what goes into the page's head.

System fonts only and nothing linked, so that the page asks no other host for anything.
"""

import base64
import json
from pathlib import Path

from gradio import themes

from app.text import Text

ASSETS = Path(__file__).parent.parent / "assets"

SANS = ("system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Consolas", "Noto Sans Mono CJK SC", "monospace")


def theme() -> themes.Base:
    """Dense and calm, with teal as the one accent; contrasts are at least WCAG AA in light and dark."""
    return themes.Base(
        primary_hue=themes.colors.teal,
        secondary_hue=themes.colors.teal,
        neutral_hue=themes.colors.slate,
        text_size=themes.sizes.text_sm,
        spacing_size=themes.sizes.spacing_sm,
        radius_size=themes.sizes.radius_md,
        font=SANS,
        font_mono=MONO,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        color_accent="*primary_700",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_700",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_label_text_size="12px",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_300",
        block_title_text_size="12px",
        block_title_text_weight="500",
        block_info_text_size="12px",
        block_info_text_color="*neutral_500",
        block_padding="6px 10px 8px",
        block_radius="8px",
        block_shadow="none",
        layout_gap="10px",
        form_gap_width="0px",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        input_border_color_focus="*primary_600",
        input_border_color_focus_dark="*primary_400",
        input_border_width="1px",
        input_padding="5px 8px",
        input_radius="*radius_sm",
        input_shadow="none",
        input_shadow_focus="0 0 0 2px *primary_200",
        input_shadow_focus_dark="0 0 0 2px *primary_900",
        input_text_size="13px",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        slider_color="*primary_600",
        checkbox_background_color_selected="*primary_700",
        checkbox_border_color_selected="*primary_700",
        checkbox_border_color="*neutral_400",
        checkbox_border_color_dark="*neutral_500",
        checkbox_label_text_size="13px",
        chatbot_text_size="14px",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_border_color="*primary_700",
        button_primary_border_color_dark="*primary_700",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_600",
        button_secondary_text_color="*neutral_800",
        button_secondary_text_color_dark="*neutral_100",
        button_cancel_background_fill="white",
        button_cancel_background_fill_dark="*neutral_900",
        button_cancel_background_fill_hover="#fef2f2",
        button_cancel_background_fill_hover_dark="#3f1518",
        button_cancel_border_color="#dc2626",
        button_cancel_border_color_dark="#f87171",
        button_cancel_text_color="#b91c1c",
        button_cancel_text_color_dark="#fca5a5",
        button_border_width="1px",
        button_large_padding="7px 16px",
        button_large_text_size="13px",
        button_large_text_weight="600",
        button_large_radius="*radius_md",
        button_medium_padding="6px 12px",
        button_medium_text_size="13px",
        button_small_padding="4px 10px",
        button_small_text_size="12px",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )


def css() -> str:
    """The style sheet for mount_gradio_app's `css`.

    Gradio prefixes each selector and drops what it does not know (@supports, @container, lists in :is()).
    """
    return "\n".join(
        (ASSETS / name).read_text(encoding="utf-8") for name in ("vendor/uplot/uPlot.min.css", "style.css")
    )


def logo() -> str:
    return (ASSETS / "logo.svg").read_text(encoding="utf-8")


def head(text: Text) -> str:
    """The icon, inside the link itself: Gradio ignores `favicon_path` on any path but /. The page's own script."""
    icon = base64.b64encode(logo().encode()).decode()
    words = json.dumps(text.group("browser")).replace("<", "\\u003c")
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    return (
        f'<link rel="icon" type="image/svg+xml" href="data:image/svg+xml;base64,{icon}">'
        f"<script>window.tunedesk = {{ words: {words} }};{{\n{script}}}</script>"
    )

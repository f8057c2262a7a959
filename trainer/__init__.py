"""The torch side of Tunedesk: a command-line program that fine-tunes and talks; never imports `app` or gradio."""

"""The list of runs in Chromium: queue, compare, open, continue, delete; two tabs and a killed page see the same."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.run_folders import DEAD, lines, write_run
from tests.browser.conftest import Walker
from tests.conftest import ROOT, Server
from tests.tiny import build_tiny_model

pytestmark = pytest.mark.slow


def old_runs(runs_dir: Path) -> None:
    model = {"model_name_or_path": str(ROOT / "assets" / "demo-model"), "dataset_dir": str(ROOT / "data")}
    for number, name in enumerate(["名字 <i>'a'; $(b) 🎉", "second", "third"]):
        events = lines(*(2.0 / (step + number + 1) for step in range(40)), total=40, time=1.7e9 + number)
        events.append({"event": "finished", "time": 1.7e9 + 50, "outcome": "completed", "step": 40, "loss": 0.1})
        write_run(runs_dir / name, events, learning_rate=round((number + 1) * 1e-4, 6), **model)
    (runs_dir / "second" / "events.jsonl").write_bytes(b"\xff{" * 1000)
    elsewhere = write_run(runs_dir / "elsewhere", lines(2.0, 1.0, time=time.time() - 5),
                          **model, adapter_name_or_path=str(runs_dir / "third" / "checkpoint-40"))  # fmt: skip
    identity = DEAD | {"host": "node-17", "boot_id": "of node-17"}
    (elsewhere / "run.json").write_text(json.dumps(identity))


def listed(walker: Walker) -> list[str]:
    return walker.page.locator(".td-runs-open").all_inner_texts()


def row(walker: Walker, name: str) -> str:
    return walker.page.locator(
        ".td-runs tbody tr", has=walker.page.get_by_role("button", name=name, exact=True)
    ).inner_text()


def tick(walker: Walker, *names: str) -> None:
    for box in walker.page.locator(".td-runs tbody input[type=checkbox]").all():
        box.uncheck()
    for name in names:
        walker.page.locator(
            f".td-runs tbody tr:has(button:text-is({json.dumps(name, ensure_ascii=False)})) input"
        ).check()


def queue(walker: Walker, name: str, place: int) -> None:
    walker.fill("output_dir", name)
    walker.click("开始")
    walker.wait_text("messages", "正在这个设备上训练")
    walker.click("排队")
    walker.wait_text("messages", f"{name} 已排队，第 {place} 位")


def test_runs_are_queued_and_start_by_themselves_though_the_page_was_killed(
    serve: Callable[..., Server], walk: Callable[..., Walker], tmp_path: Path
) -> None:
    # So small that many trainings fit into a minute, so long that none ends by itself.
    model = ("--model", str(build_tiny_model(tmp_path / "tiny")))
    server = serve(*model, runs_dir=tmp_path / "runs")
    walker = walk(server.address, "zh").open()
    walker.fill("num_train_epochs", "5000")
    walker.fill("output_dir", "live")
    walker.click("开始")
    walker.wait_text("status", "训练中", 60)
    queue(walker, "first", 1)
    queue(walker, "second", 2)
    walker.tab("运行记录")
    other = walk(server.address, "en").open()
    other.tab("Runs")
    for one in (walker, other):
        one.wait(lambda one=one: listed(one) == ["first", "second", "live"], "the queue", 10)
    walker.picture("zh-runs-queue-1400")
    assert "Queued, place 2" in row(other, "second")
    assert other.page.get_by_role("button", name="Start earlier").nth(0).is_disabled(), "it is the first"
    assert other.page.get_by_role("button", name="Start later").nth(1).is_disabled(), "it is the last"
    other.page.get_by_role("button", name="Start earlier").nth(1).click()
    for one in (walker, other):
        one.wait(lambda one=one: listed(one) == ["second", "first", "live"], "the new order", 10)
    walker.page.get_by_role("button", name="取消排队").nth(1).click()
    other.wait(lambda: listed(other) == ["second", "live"], "the cancelled run to go", 10)

    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    again = walk(serve(*model, runs_dir=tmp_path / "runs").address, "en").open()
    again.wait_text("status", "Training")
    drawn = again.page.locator("#loss-chart [data-points]").first
    again.wait(lambda: json.loads(drawn.get_attribute("data-points") or "{}").get("step", [])[:2] == [5, 10],
               "the curve from the first step", 10, lambda: drawn.get_attribute("data-points"))  # fmt: skip
    again.tab("Runs")
    again.wait(lambda: listed(again) == ["second", "live"], "the list")
    again.wait(lambda: "Queued, place 1" in row(again, "second"), "the queue to be as it was")
    assert "Training" in row(again, "live"), "a killed page leaves its trainer alone"
    tick(again, "live")
    again.click("Abort")
    again.wait(lambda: "Stopped" in row(again, "live"), "the abort", 30, lambda: row(again, "live"))
    again.wait(lambda: "Training" in row(again, "second"), "the queued run to start", 60, lambda: row(again, "second"))

    tick(again, "live")
    again.click("Resume")
    again.wait_text("messages", "second is training on this device")
    assert again.page.locator("#offer_queue").is_visible()
    assert walker.errors == other.errors == again.errors == []


def test_runs_are_compared_opened_continued_and_deleted_after_asking(
    serve: Callable[..., Server], walk: Callable[..., Walker], tmp_path: Path
) -> None:
    old_runs(tmp_path / "runs")
    odd = "名字 <i>'a'; $(b) 🎉"
    server = serve(runs_dir=tmp_path / "runs")
    walker = walk(server.address, "zh").open()
    walker.tab("运行记录")
    walker.wait(lambda: sorted(listed(walker)) == sorted([odd, "second", "third", "elsewhere"]), "the list", 10)
    assert "训练中，在机器 node-17 上" in row(walker, "elsewhere")
    tick(walker, "elsewhere")
    assert walker.page.locator("[data-act=abort]").is_enabled(), "it is asked through the folder"
    walker.page.get_by_role("checkbox", name="选择列表中的全部训练").check()
    assert walker.page.locator(".td-runs tbody input:checked").count() == 4
    tick(walker, odd, "third")
    walker.click("对比")
    walker.wait_text("compare_table", "学习率")
    assert "0.0001" in walker.text("compare_table")
    assert "0.0003" in walker.text("compare_table")
    drawn = walker.page.locator("#compare_chart [data-runs]")
    walker.wait(lambda: sorted(json.loads(drawn.get_attribute("data-runs"))) == sorted([odd, "third"]), "the curves")
    walker.picture("zh-runs-compare-1400")

    walker.click(odd)
    walker.wait_text("shown_run", odd)
    walker.wait_text("status", "训练完毕")
    walker.click("显示最新的训练")
    walker.wait(lambda: walker.page.locator("#shown_run").inner_text().strip() == "", "the newest run")

    walker.tab("运行记录")
    tick(walker, "third")
    walker.click("改设置再训练")
    walker.wait_text("messages", "表单已填入 third 的设置")
    assert walker.field("learning_rate").input_value() == "0.0003"
    assert walker.field("output_dir").input_value().startswith("train_")

    walker.tab("运行记录")
    tick(walker, "third")
    walker.click("删除")
    walker.wait(
        lambda: "elsewhere 由此继续训练" in walker.page.get_by_role("alertdialog").inner_text(), "the warning", 5
    )
    walker.click("保留")
    assert "third" in listed(walker)
    assert (tmp_path / "runs" / "third").is_dir()
    walker.click("删除")
    walker.page.locator("[data-confirm=yes]").click()
    walker.wait(lambda: "third" not in listed(walker), "the run to go", 10)
    assert not (tmp_path / "runs" / "third").exists()
    tick(walker, "elsewhere")
    walker.click("删除")
    walker.page.locator("[data-confirm=yes]").click()
    walker.wait_text("runs_messages", "elsewhere 不久前还在机器 node-17 上训练")
    assert sorted(listed(walker)) == sorted([odd, "second", "elsewhere"])
    assert walker.errors == []
    assert walker.foreign == []

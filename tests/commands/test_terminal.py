"""Progress in a terminal."""

import re

import pytest

from explorer.commands.terminal import Bars


def test_a_stage_that_begins_again_gets_a_bar_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        for total in (2, 3):
            for done in range(1, total + 1):
                bars.report("products", done, total)
        bars.report("products", 1, 3)
        bars.report("rows", 1, 1)
        bars.report("products", 3, 3, "loss 0.5")
    shown = [line.split("\r")[-1] for line in capsys.readouterr().err.split("\n") if line]
    ends = [re.search(r"(\w+): .* (\d+/\d+) ", line) for line in shown]
    assert [found.groups() for found in ends if found] == [
        ("products", "2/2"),
        ("products", "3/3"),
        ("products", "1/3"),
        ("rows", "1/1"),
        ("products", "3/3"),
    ]
    assert "loss 0.5" in shown[-1]

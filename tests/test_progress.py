"""The progress bar counts tasks where there is a terminal, and is silent elsewhere."""

import dask.array as da

from geoalign.progress import progress


def test_without_a_terminal_nothing_is_written(capsys):
    with progress(on=False) as step:
        step("read")
        da.ones((4, 4), chunks=2).sum().compute()
    assert capsys.readouterr().err == ""


def test_on_a_terminal_steps_are_shown(capsys):
    with progress(on=True) as step:
        step("read the scenes")
        da.ones((4, 4), chunks=2).sum().compute()
    out = capsys.readouterr()
    assert out.out == ""
    assert "read the scenes" in out.err

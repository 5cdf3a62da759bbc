"""Rows are whole or not there, come back as they were, and are kept by one sweep at a time."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from channels.atomic_write import whole_file
from channels.errors import ConfigError
from experiments.sweep.store import Store, read_results, row_key, table_of


def row(point: str, realisation: int, **more: object) -> dict[str, object]:
    return {"point": point, "picture_key": "p", "realisation": realisation, **more}


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    rows = [row("a", n, psnr_db=float(n), matrix=[n, n]) for n in range(3)]
    with Store(tmp_path) as store:
        store.add(rows[:2])
        store.add(rows[2:])
        assert store.done() == {row_key(one) for one in rows}
        keys = [row_key(one) for one in reversed(rows)]
        assert store.select(keys).to_pylist() == rows[::-1]
        store.compact()
        assert len(list(store.parts.iterdir())) == 1
        assert store.select(keys).to_pylist() == rows[::-1]


def test_ledgers_of_different_parts_are_filled_with_zeros(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add([row("a", 0, bits_fec=5)])
        store.add([row("a", 1, bits_raptorq=7, lpips=None)])
        table = store.select([("a", "p", 0), ("a", "p", 1)])
    assert table["bits_fec"].to_pylist() == [5, 0]
    assert table["bits_raptorq"].to_pylist() == [0, 7]


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    store, writing = Store(tmp_path), ExitStack()

    def half_written() -> list[Path]:
        """A picture and a part, as `SIGKILL` leaves them."""
        found = []
        for folder in (tmp_path / "pictures", tmp_path / "parts"):
            folder.mkdir(exist_ok=True)
            found.append(writing.enter_context(whole_file(folder / "whole")))
            found[-1].write_bytes(b"half")
        return found

    with suppress(FileNotFoundError), writing:
        by_a_sweep = half_written()
        (tmp_path / "pictures" / "street.png").write_bytes(b"a picture")
        with store:
            assert not any(path.exists() for path in by_a_sweep)
            by_a_worker = half_written()
        assert not any(path.exists() for path in by_a_worker)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["street.png"]


def test_a_damaged_part_is_set_aside_and_the_rest_kept(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add([row("a", 0)])
        (first,) = store.parts.glob("*.parquet")
        first.write_bytes(first.read_bytes()[:-7])
        store.add([row("a", 1)])
        assert store.done() == {("a", "p", 1)}
        assert first.with_suffix(".damaged").exists()


def test_an_interrupted_compaction_leaves_no_row_twice(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add([row("a", 0)])
        store.add([row("a", 1)])
        before = {path: path.read_bytes() for path in store.parts.iterdir()}
        store.compact()
        for path, content in before.items():
            path.write_bytes(content)
        assert store.done() == {("a", "p", 0), ("a", "p", 1)}
        assert store.select([("a", "p", 1)]).num_rows == 1


def test_files_left_half_written_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "x.parquet.1.aside").write_bytes(b"half")
    with Store(tmp_path) as store:
        assert store.done() == set()
        assert list(store.parts.iterdir()) == []


def test_a_second_sweep_in_the_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(ConfigError, match="another sweep is writing here"):
        Store(tmp_path).__enter__()
    with Store(tmp_path):
        pass


def test_a_sweep_that_writes_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with Store(tmp_path / "results" / "first"):
        pass
    assert not list(tmp_path.iterdir())
    with Store(tmp_path / "results" / "first") as store:
        store.add([row("a", 0)])
    with suppress(ConfigError), Store(tmp_path / "results" / "second"):
        raise ConfigError("refused")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["first"]
    assert len(list(store.parts.iterdir())) == 1
    (tmp_path / "mine").mkdir()
    with Store(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()  # it was there before


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        Store(tmp_path / "results").__enter__()


def test_a_folder_without_results_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `sqlink sweep` first"):
        read_results(tmp_path)
    with Store(tmp_path), pytest.raises(ConfigError, match="run the sweep again to its end"):
        read_results(tmp_path)
    (tmp_path / "results.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_results(tmp_path)


def test_csv_leaves_out_lists(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.write_table("results", table_of([row("a", 0, confusion=[1, 2], psnr_db=3.5)]))
    assert (tmp_path / "results.csv").read_text().splitlines() == [
        '"point","picture_key","realisation","psnr_db"',
        '"a","p",0,3.5',
    ]
    assert read_results(tmp_path)["confusion"].to_pylist() == [[1, 2]]


def test_the_ledgers_means_need_not_be_whole() -> None:
    table = table_of([{"point": "a", "bits_index": 1.5}, {"point": "b"}], ("point",))
    assert table["bits_index"].to_pylist() == [1.5, 0.0]

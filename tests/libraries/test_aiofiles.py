"""aiofiles."""

from __future__ import annotations

from pathlib import Path

from library_helpers import ROUNDS, abandoned, library, many, rounds, run, uses

aiofiles = library("aiofiles")
aiofiles_os = library("aiofiles.os", "aiofiles")
aiofiles_tempfile = library("aiofiles.tempfile", "aiofiles")


async def files(folder: Path, number: int) -> None:
    """Write, read, list, rename, remove."""
    path = folder / f"{number}"
    async with aiofiles.open(path, "w") as file:
        await file.writelines(f"line {n} of {number}\n" for n in range(20))
    async with aiofiles.open(path) as file:
        assert [line async for line in file] == [f"line {n} of {number}\n" for n in range(20)]
    async with aiofiles.open(path, "rb") as file:
        await file.seek(5)
        assert await file.read(1) == b"0"
    await aiofiles_os.rename(path, folder / f"{number}.old")
    assert f"{number}.old" in await aiofiles_os.listdir(folder)
    await aiofiles_os.remove(folder / f"{number}.old")
    async with aiofiles_tempfile.TemporaryFile("w+") as file:
        await file.write("temporary")
        await file.seek(0)
        assert await file.read() == "temporary"


@uses
def test_files(use: str, tmp_path: Path) -> None:
    async def main() -> None:
        await many(use, lambda number: rounds(lambda n: files(tmp_path, number * ROUNDS + n)))
        assert not list(tmp_path.iterdir())

    run(use, main)


@uses
def test_the_end_in_the_middle(use: str, tmp_path: Path) -> None:
    async def main() -> None:
        await abandoned(use, lambda number: files(tmp_path, number))

    run(use, main)

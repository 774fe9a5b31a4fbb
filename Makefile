# make demo     the main job on whatever Python is there: a server whose clients block, on asyncio and on plait
# make test     ruff, mypy, and the whole suite on a GIL build and on a free-threaded one
# make test-libraries   aiohttp, asyncpg, uvicorn and others on plait, against real servers (in make test as well)
# make bench    the figures, against asyncio and uvloop; a table and bench/results.json
# make stress   the long form of the stress tests and the fuzzing on both builds (minutes), then half an hour of the long run on both at once;
#               STRESS_MINUTES=1 make stress for less of that (docs/reliability.md)
# Each sets up what it needs at its first call, and says what it does.

PYTHON ?= python3

.PHONY: demo test test-libraries bench stress clean

demo:
	@tools/demo.sh $(PYTHON)

test:
	@tools/test.sh $(PYTHON)

test-libraries:
	@tools/libraries.sh $(PYTHON)

stress:
	@tools/stress.sh $(PYTHON)

bench:
	@tools/bench.sh $(PYTHON)

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache

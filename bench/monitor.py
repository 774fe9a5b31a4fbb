"""The monitor's price: process CPU time of the switch figure with it and without, by turns in one process.

(Between two processes the layout of memory alone makes some 2 % either way.)
"""

import os

from bench import common, switch


def main() -> None:
    parser = common.parser(__doc__, ("plait",))
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--turns", type=int, default=10)
    args = parser.parse_args()
    seconds = {"0": 0.0, "1": 0.0}
    common.run("plait", switch.measure, "plait", 1000, args.n // 10, False, workers=1)  # the first one warms up
    for number in range(args.turns):
        for value in ("0", "1") if number % 2 else ("1", "0"):
            os.environ["PLAIT_MONITOR"] = value
            seconds[value] += common.run("plait", switch.measure, "plait", 1000, args.n, False, workers=1)["cpu_s"]
    common.emit({"on_s": seconds["1"], "off_s": seconds["0"]})


if __name__ == "__main__":
    main()

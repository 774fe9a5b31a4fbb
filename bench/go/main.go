// The same figures in Go: `go run ./bench/go FIGURE` prints one JSON object, as the Python modules do.
//
// switch: 1,000 goroutines, runtime.Gosched(), GOMAXPROCS 1.  spawn: 10,000 goroutines and a WaitGroup; one at a time over a
// channel.  memory: 10,000 goroutines blocked on one channel.  lateness: 64 goroutines in nanosleep(2) for a second, three
// rounds, while 100 are due every 5 ms, GOMAXPROCS 2 (or the second argument).
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func emit(figures map[string]any) {
	figures["version"] = runtime.Version()
	out, err := json.Marshal(figures)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(out))
}

func switches() {
	const tasks, n = 1000, 1000
	runtime.GOMAXPROCS(1)
	var done sync.WaitGroup
	gate := make(chan struct{})
	done.Add(tasks)
	for i := 0; i < tasks; i++ {
		go func() {
			<-gate
			for i := 0; i < n; i++ {
				runtime.Gosched()
			}
			done.Done()
		}()
	}
	time.Sleep(50 * time.Millisecond)
	begin := time.Now()
	close(gate)
	done.Wait()
	emit(map[string]any{"ns": float64(time.Since(begin).Nanoseconds()) / (tasks * n)})
}

func spawn() {
	const tasks, ones, repeats = 10000, 2000, 6
	var group, one time.Duration
	for i := 0; i < repeats; i++ { // the last one counts
		begin := time.Now()
		var done sync.WaitGroup
		done.Add(tasks)
		for i := 0; i < tasks; i++ {
			go done.Done()
		}
		done.Wait()
		group = time.Since(begin)
		begin = time.Now()
		reply := make(chan struct{})
		for i := 0; i < ones; i++ {
			go func() { reply <- struct{}{} }()
			<-reply
		}
		one = time.Since(begin)
	}
	emit(map[string]any{"group_us": group.Seconds() / tasks * 1e6, "one_us": one.Seconds() / ones * 1e6})
}

func memory() {
	const tasks = 10000
	gate := make(chan struct{})
	used := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.StackInuse + stats.HeapAlloc
	}
	before := used()
	for i := 0; i < tasks; i++ {
		go func() { <-gate }()
	}
	time.Sleep(100 * time.Millisecond)
	emit(map[string]any{"bytes": float64(used()-before) / tasks})
	close(gate)
}

type tick struct{ due, late int64 }

func lateness(procs int) {
	const tickers, blockers, rounds, period = 100, 64, 3, 5_000_000
	runtime.GOMAXPROCS(procs)
	origin := time.Now()
	now := func() int64 { return time.Since(origin).Nanoseconds() }
	var stop atomic.Bool
	var done sync.WaitGroup
	seen := make([][]tick, tickers)
	begin := now() + 50_000_000
	for i := 0; i < tickers; i++ {
		done.Add(1)
		i := i // before Go 1.22 all rounds share one
		go func() {
			defer done.Done()
			for due := begin + period; !stop.Load(); due += period {
				time.Sleep(time.Duration(due - now()))
				seen[i] = append(seen[i], tick{due, now() - due})
			}
		}()
	}
	time.Sleep(500 * time.Millisecond)
	type window struct {
		label      string
		start, end int64
	}
	windows := []window{{"quiet", begin, now() - 50_000_000}}
	for round := 0; round < rounds; round++ {
		start := now()
		var blocked sync.WaitGroup
		for i := 0; i < blockers; i++ {
			blocked.Add(1)
			go func() {
				defer blocked.Done()
				second := syscall.Timespec{Sec: 1}
				_ = syscall.Nanosleep(&second, nil)
			}()
		}
		blocked.Wait()
		windows = append(windows, window{strconv.Itoa(round + 1), start, now()})
		time.Sleep(500 * time.Millisecond)
	}
	stop.Store(true)
	done.Wait()
	var out []map[string]any
	for _, w := range windows {
		var late []float64
		for _, one := range seen {
			for _, t := range one {
				if t.due >= w.start && t.due <= w.end {
					late = append(late, float64(t.late)/1e6)
				}
			}
		}
		sort.Float64s(late)
		at := func(q float64) float64 {
			index := int(q * float64(len(late)))
			if index == len(late) {
				index--
			}
			return late[index]
		}
		out = append(out, map[string]any{"round": w.label, "ticks": len(late), "p50": at(0.5), "p99": at(0.99),
			"p999": at(0.999), "max": late[len(late)-1], "seconds": float64(w.end-w.start) / 1e9})
	}
	emit(map[string]any{"rounds": out})
}

func main() {
	switch os.Args[1] {
	case "switch":
		switches()
	case "spawn":
		spawn()
	case "memory":
		memory()
	case "lateness":
		procs := 2
		if len(os.Args) > 2 {
			procs, _ = strconv.Atoi(os.Args[2])
		}
		lateness(procs)
	default:
		panic("switch, spawn, memory or lateness")
	}
}

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is asked of a machine that hangs, and how much of the answers is shown.
var hungQuestions = []struct {
	command string
	limit   int
}{
	{"version", 512},
	{"sysrq w", 32 << 10}, // the tasks that wait for I/O, with their stacks
	{"sysrq q", 8 << 10},  // clocks and timers
	{"sysrq m", 8 << 10},  // memory, and what of it is dirty
	// These need a kernel thread, and thus a scheduler.
	{"proc diskstats", 4 << 10}, // the ninth figure: requests in flight
	{"proc interrupts", 4 << 10},
	{"proc meminfo", 4 << 10},
	// Every task. It comes last: a kernel of 6.1 that is idle dies of it.
	{"sysrq t", 96 << 10},
}

const (
	// questionLimit is how long one answer may take, and diagnosisLimit all of them.
	questionLimit  = 3 * time.Second
	diagnosisLimit = 20 * time.Second
	// sampleInterval lies between two looks at the CPU time of the machine's processes.
	sampleInterval = time.Second
	// maxProcesses is how many of them are shown.
	maxProcesses = 64
)

// diagnose writes to w what there is to know about a machine that does not answer. It takes a little longer than
// diagnosisLimit at most, and ends early when stop is closed.
func (m *umlMachine) diagnose(w io.Writer, stop <-chan struct{}) {
	section := func(title, text string) {
		if text = strings.TrimRight(text, "\n"); text != "" {
			text += "\n"
		}
		// Nobody can be told that nobody can be told.
		_, _ = fmt.Fprintf(w, "lab: --- %s\n%s", title, text)
	}
	section("last beats", fmt.Sprintf("on the host's file system: %s\non its disk: %s",
		lastBeat(m.job.path(beatFile)), lastBeat(m.job.beatDisk())))
	section("the end of its console", m.console.tail())
	before := processesOf(m.cmd.Process.Pid)
	select {
	case <-stop:
		return
	case <-time.After(sampleInterval):
	}
	section("its processes, as the host sees them (CPU: in all, and in the last second)",
		describeProcesses(before, processesOf(m.cmd.Process.Pid)))
	m.askAll(section, time.Now().Add(diagnosisLimit), stop)
}

// askAll has the kernel answer until it has said all, the time is up, or the machine lives again.
func (m *umlMachine) askAll(section func(title, text string), deadline time.Time, stop <-chan struct{}) {
	beat, _ := m.beat()
	for _, question := range hungQuestions {
		select {
		case <-stop:
			return
		default:
		}
		if time.Now().After(deadline) {
			section("no time for the rest", "")
			return
		}
		section("its kernel: "+question.command, m.ask(question.command, question.limit))
		if now, _ := m.beat(); now != beat {
			section("its heart beats again: "+now, "")
			return
		}
	}
}

// ask has one question answered, at the console as well as by it: the socket holds but a few packets, and loses the
// rest of a long answer.
func (m *umlMachine) ask(command string, limit int) string {
	m.console.startRecord(limit)
	answer, err := askKernel(m.job.path(mconsoleSocket), command, limit, questionLimit)
	seen := m.console.endRecord()
	if len(seen) > len(answer) {
		return seen
	}
	if err != nil {
		answer += fmt.Sprintf("\n(no answer, or no more: %v)", err)
	}
	return answer
}

// hostProcess is one process of a machine as the host sees it.
type hostProcess struct {
	pid, parent int
	name, state string
	ticks       int // of CPU time, user and system
	wchan, call string
	signals     string
}

// processesOf lists a process and all that descend from it, the oldest first.
func processesOf(root int) []hostProcess {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	all := map[int]hostProcess{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		if p, err := parseStat(string(text)); err == nil {
			all[p.pid] = p
		}
	}
	var found []hostProcess
	for _, p := range all {
		if !descends(all, p.pid, root) {
			continue
		}
		dir := filepath.Join("/proc", strconv.Itoa(p.pid))
		p.wchan = firstWord(filepath.Join(dir, "wchan"))
		p.call = firstWord(filepath.Join(dir, "syscall"))
		p.signals = signalsOf(filepath.Join(dir, "status"))
		found = append(found, p)
	}
	slices.SortFunc(found, func(a, b hostProcess) int { return a.pid - b.pid })
	return found
}

func descends(all map[int]hostProcess, pid, root int) bool {
	for range all { // as many steps as there can be
		if pid == root {
			return true
		}
		pid = all[pid].parent
	}
	return false
}

// parseStat reads a line of /proc/PID/stat; proc(5) numbers its fields.
func parseStat(line string) (hostProcess, error) {
	// The name is in parentheses, and may hold some itself.
	open, shut := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || shut < open {
		return hostProcess{}, fmt.Errorf("not a line of /proc/PID/stat: %q", line)
	}
	fields := strings.Fields(line[shut+1:]) // from the third on
	if len(fields) < 13 {
		return hostProcess{}, fmt.Errorf("not a line of /proc/PID/stat: %q", line)
	}
	var numbers [4]int
	for i, text := range []string{strings.TrimSpace(line[:open]), fields[1], fields[11], fields[12]} {
		number, err := strconv.Atoi(text)
		if err != nil {
			return hostProcess{}, err
		}
		numbers[i] = number
	}
	return hostProcess{
		pid: numbers[0], parent: numbers[1], ticks: numbers[2] + numbers[3],
		name: line[open+1 : shut], state: fields[0],
	}, nil
}

// describeProcesses has a line for each process of now.
func describeProcesses(before, now []hostProcess) string {
	const ticksPerSecond = 100 // USER_HZ, the same on all that Go runs on
	earlier := map[int]int{}
	for _, p := range before {
		earlier[p.pid] = p.ticks
	}
	var text strings.Builder
	for i, p := range now {
		if i == maxProcesses {
			fmt.Fprintf(&text, "and %d more\n", len(now)-i)
			break
		}
		recent := 0
		if ticks, known := earlier[p.pid]; known {
			recent = p.ticks - ticks
		}
		fmt.Fprintf(&text, "%d (of %d) %s: state %s, CPU %.2f s and %.2f s, wchan %s, system call %s, %s\n",
			p.pid, p.parent, p.name, p.state, float64(p.ticks)/ticksPerSecond, float64(recent)/ticksPerSecond,
			p.wchan, p.call, p.signals)
	}
	return text.String()
}

// firstWord of a file, or a dash: not every host tells everything to everybody.
func firstWord(name string) string {
	text, _ := os.ReadFile(name)
	if words := strings.Fields(string(text)); len(words) > 0 {
		return words[0]
	}
	return "-"
}

// signalsOf tells which signals are pending and blocked: User Mode Linux's interrupts are signals.
func signalsOf(name string) string {
	text, _ := os.ReadFile(name)
	var words []string
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if key == "SigPnd" || key == "ShdPnd" || key == "SigBlk" {
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err == nil {
				words = append(words, fmt.Sprintf("%s %x", key, set))
			}
		}
	}
	return strings.Join(words, " ")
}

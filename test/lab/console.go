package main

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// consoleLines is how much of a dead machine's console is worth reading.
const consoleLines = 40

// console remembers the last lines of the machine's kernel console, and copies
// all of it to echo if that is set.
type console struct {
	echo io.Writer

	mu       sync.Mutex
	lines    [][]byte
	rest     []byte
	record   []byte // what was written since startRecord, up to its limit
	recorded int
}

// Write implements io.Writer. It never fails: a console that blocks or breaks
// would stop the machine.
func (c *console) Write(p []byte) (int, error) {
	if c.echo != nil {
		_, _ = c.echo.Write(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record = append(c.record, p[:min(len(p), c.recorded-len(c.record))]...)
	c.rest = append(c.rest, p...)
	for {
		line, rest, found := bytes.Cut(c.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		c.lines = append(c.lines, bytes.TrimRight(bytes.Clone(line), "\r"))
		if len(c.lines) > consoleLines {
			c.lines = c.lines[1:]
		}
		c.rest = rest
	}
}

// startRecord keeps at most so many bytes of what is written from now on.
func (c *console) startRecord(limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record, c.recorded = nil, limit
}

// endRecord returns what was written since startRecord.
func (c *console) endRecord() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := strings.ReplaceAll(string(c.record), "\r", "")
	c.record, c.recorded = nil, 0
	return text
}

// tail returns the last lines, each with its newline.
func (c *console) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var text bytes.Buffer
	for _, line := range c.lines {
		text.Write(line)
		text.WriteByte('\n')
	}
	if len(c.rest) > 0 {
		text.Write(c.rest)
		text.WriteByte('\n')
	}
	return text.String()
}

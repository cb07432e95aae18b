package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFollow(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	live := make(chan string, 1)
	var got bytes.Buffer
	first := writerFunc(func(p []byte) (int, error) {
		select {
		case live <- string(p):
		default:
		}
		return got.Write(p)
	})
	done, followed := make(chan struct{}), make(chan error, 1)
	go func() { followed <- follow(name, first, done) }()

	if _, err := file.WriteString("one"); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-live:
		if text != "one" {
			t.Errorf("first came %q", text)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing comes through while the file is written")
	}
	big := bytes.Repeat([]byte("\x00\xff\r\n\x04binary"), 100_000)
	if _, err := file.Write(big); err != nil {
		t.Fatal(err)
	}
	close(done)
	if err := <-followed; err != nil {
		t.Fatal(err)
	}
	if want := append([]byte("one"), big...); !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got %d bytes, want %d, or they differ", got.Len(), len(want))
	}
}

func TestFollowReportsBrokenOutput(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err := follow(name, writerFunc(func([]byte) (int, error) { return 0, broken }), nil)
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestConsoleKeepsTheLastLines(t *testing.T) {
	var echo strings.Builder
	c := &console{echo: &echo}
	all := ""
	for i := range consoleLines + 5 {
		all += fmt.Sprintf("line %d\r\n", i)
	}
	all += "no newline"
	for i := 0; i < len(all); i += 7 { // in pieces that respect no line
		if _, err := c.Write([]byte(all[i:min(i+7, len(all))])); err != nil {
			t.Fatal(err)
		}
	}
	if echo.String() != all {
		t.Error("the echo is not what was written")
	}
	lines := strings.Split(strings.TrimSuffix(c.tail(), "\n"), "\n")
	if len(lines) != consoleLines+1 || lines[0] != "line 5" || lines[consoleLines] != "no newline" {
		t.Errorf("%d lines, from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}
}

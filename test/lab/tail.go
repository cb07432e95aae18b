package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// tailInterval is how long output may wait in its file: too short to be seen, and
// long enough that looking costs nothing.
const tailInterval = 10 * time.Millisecond

// follow copies what is written to the file called name to dst, until done is
// closed and the end of the file is reached.
func follow(name string, dst io.Writer, done <-chan struct{}) error {
	src, err := os.Open(name)
	if err != nil {
		return err
	}
	defer src.Close()

	buf := make([]byte, 64<<10)
	for last := false; ; {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return fmt.Errorf("passing on the command's output: %w", err)
			}
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if last {
			return nil
		}
		select {
		case <-done:
			// Once more: the last words may have come after the last look.
			last = true
		case <-time.After(tailInterval):
		}
	}
}

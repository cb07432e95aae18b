package main

import (
	"errors"
	"io"
	"os"
)

// output carries the command's output from the machine to files of the host, as
// pipes: given the files themselves, a command which opens /dev/stdout would
// truncate what was written before.
type output struct {
	stdout, stderr *os.File
	copies         []<-chan error
}

// openOutput opens the files of the host, which must be done before something is
// mounted over their directory.
func openOutput(j *job) (*output, error) {
	out := &output{}
	var err error
	if out.stdout, err = out.carry(j.path(stdoutFile)); err != nil {
		return nil, err
	}
	if out.stderr = out.stdout; !j.OneStream {
		out.stderr, err = out.carry(j.path(stderrFile))
	}
	return out, err
}

// carry returns the writing end of a pipe to the file called name.
func (o *output) carry(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	copied := make(chan error, 1)
	o.copies = append(o.copies, copied)
	go func() {
		// Plain writes: splice would only be a detour on this file system.
		_, err := io.Copy(struct{ io.Writer }{file}, struct{ io.Reader }{r})
		copied <- errors.Join(err, file.Close())
	}()
	return w, nil
}

// close waits until all that was written has arrived. Nobody else may have the
// pipes open any more.
func (o *output) close() error {
	errs := []error{o.stdout.Close()}
	if o.stderr != o.stdout {
		errs = append(errs, o.stderr.Close())
	}
	for _, copied := range o.copies {
		errs = append(errs, <-copied)
	}
	return errors.Join(errs...)
}

package labtest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// fakeTest records how a test fails.
type fakeTest struct {
	testing.TB
	fatal string
}

func (*fakeTest) Helper() {}

func (f *fakeTest) Fatal(args ...any) {
	f.fatal = fmt.Sprint(args...)
	runtime.Goexit()
}

func TestRequireFailsOutsideTheLab(t *testing.T) {
	t.Setenv("LAB_DISKS", "")
	fake := &fakeTest{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		labtest.Require(fake)
		t.Error("Require returned without a lab")
	}()
	<-done
	if !strings.Contains(fake.fatal, "run this test in the lab: make test-lab") {
		t.Errorf("failed with %q", fake.fatal)
	}
}

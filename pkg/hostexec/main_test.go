package hostexec

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if what, ok := strings.CutPrefix(os.Getenv(envApartTest), "x"); ok {
		apartMain(what)
	}
	goleak.VerifyTestMain(m)
}

// Package percentage has the value of flags that both programs have.
package percentage

import (
	"fmt"
	"strconv"
	"strings"
)

// Value is a flag value: "5" or "5%".
type Value float64

// String implements pflag.Value.
func (p *Value) String() string { return strconv.FormatFloat(float64(*p), 'g', -1, 64) + "%" }

// Set implements pflag.Value.
func (p *Value) Set(s string) error {
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(f >= 0 && f < 100) {
		return fmt.Errorf("%q is not a percentage from 0 to less than 100", s)
	}
	*p = Value(f)
	return nil
}

// Type implements pflag.Value.
func (p *Value) Type() string { return "percentage" }

package driver

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// The keys about thick volumes and their snapshots.
const (
	keyStripes    = "stripes"
	keyStripeSize = "stripeSize"
	keyRAIDType   = "raidType"
	keyMirrors    = "mirrors"

	keyCOWSize = "cowSize"
)

var raidTypes = []string{"raid1", "raid5", "raid10"}

// parseLayout reads how thick volumes lie on the disks. What goes with what is the backend's to say.
func parseLayout(params map[string]string, t storage.Type) (storage.Layout, error) {
	var l storage.Layout
	for _, key := range []string{keyStripes, keyStripeSize, keyRAIDType, keyMirrors} {
		if params[key] != "" && t != storage.TypeThick {
			return storage.Layout{}, fmt.Errorf("%w: parameter %s is for %s %s", storage.ErrInvalid, key, keyType, storage.TypeThick)
		}
	}
	for _, number := range []struct {
		key string
		to  *int
	}{{keyStripes, &l.Stripes}, {keyMirrors, &l.Mirrors}} {
		value := params[number.key]
		if value == "" {
			continue
		}
		n, err := strconv.ParseUint(value, 10, 10)
		if err != nil || n == 0 {
			return storage.Layout{}, fmt.Errorf("%w: parameter %s %q is not a small number above 0", storage.ErrInvalid, number.key, value)
		}
		*number.to = int(n)
	}
	if value := params[keyStripeSize]; value != "" {
		n, ok := ParseQuantity(value)
		if !ok {
			return storage.Layout{}, fmt.Errorf("%w: parameter %s %q is not a size such as 64Ki", storage.ErrInvalid, keyStripeSize, value)
		}
		l.StripeBytes = n
	}
	if value := params[keyRAIDType]; value != "" && !slices.Contains(raidTypes, value) {
		return storage.Layout{}, fmt.Errorf("%w: parameter %s %q is none of %s", storage.ErrInvalid, keyRAIDType, value, strings.Join(raidTypes, ", "))
	}
	l.RAIDType = params[keyRAIDType]
	return l, nil
}

// parseCOWSize reads how much of a thick volume a snapshot has room for: 20% of it, or 10Gi.
func parseCOWSize(value string) (storage.COWSize, error) {
	if value == "" {
		return storage.COWSize{}, nil
	}
	if digits, ok := strings.CutSuffix(value, "%"); ok {
		if n, err := strconv.Atoi(digits); err == nil && n >= 1 && n <= 100 {
			return storage.COWSize{Percent: n}, nil
		}
	} else if n, ok := ParseQuantity(value); ok {
		return storage.COWSize{Bytes: n}, nil
	}
	return storage.COWSize{}, fmt.Errorf("%w: parameter %s %q is neither a share of the volume from 1%% to 100%% nor a size such as 10Gi",
		storage.ErrInvalid, keyCOWSize, value)
}

var quantityPattern = regexp.MustCompile(`^([0-9]{1,12})(|Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)$`)

var quantityUnits = map[string]int64{
	"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50,
	"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
}

// ParseQuantity reads a size above 0 as Kubernetes writes them, in whole numbers.
func ParseQuantity(s string) (bytes int64, ok bool) {
	m := quantityPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	unit := quantityUnits[m[2]]
	return n * unit, err == nil && n > 0 && n <= math.MaxInt64/unit
}

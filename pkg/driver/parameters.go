package driver

import (
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// parameter is a key of a class, and what people are to know of it: docs/reference/parameters.md is made of these (make reference).
// Names of values stand in quotes.
type parameter struct {
	key      string
	values   string
	fallback string
	help     string
}

// oneOf quotes values.
func oneOf(values ...string) string { return "'" + strings.Join(values, "', '") + "'" }

var classParameters = []parameter{
	{
		keyType, oneOf(string(storage.TypeThin), string(storage.TypeThick)), oneOf(string(storage.TypeThin)),
		"a thin pool's volumes take room when they are written to, the others from the beginning",
	},
	{keyVolumeGroup, "one of the driver's --volume-group", "the first of them", ""},
	{keyThinPool, "a thin pool in that group", "the group's only pool", "only with type 'thin'. A group with several pools needs it"},
	{
		keyOverprovisionRatio, "1 to 1000", "--overprovision-ratio",
		"only with type 'thin': the volumes of the pool may have together so many times its size, and a new one so many times what is free in it above the reserve. " +
			"A volume that is larger is refused with 'ResourceExhausted', and a node where it would be is not offered to the scheduler. " +
			"Snapshots do not count; a restore or clone within the pool needs no free space in proportion",
	},
	{keyStripes, "2 to 128", "none", "only with type 'thick': over how many disks the data is spread; for 'raid5' and 'raid10' without parity and copies"},
	{keyStripeSize, "a power of two from '4Ki'", "LVM's, '64Ki'", "how much goes to a stripe at a time; needs 'stripes'"},
	{keyRAIDType, oneOf(raidTypes...), "none", "only with type 'thick': 'raid1' needs 'mirrors', 'raid5' needs 'stripes', 'raid10' both"},
	{keyMirrors, "1 to 9", "none", "the copies beside the first"},
	{keyFSType, oneOf(fsTypes...), oneOf(fsTypes[0]), "a restore or clone has by default the file system of its source"},
}

var snapshotClassParameters = []parameter{
	{
		keyCOWSize, "a share of the volume ('20%'), or a size ('10Gi', whole numbers)", "room for all of it",
		"how much of a thick volume can be overwritten before the snapshot is lost; with the default it cannot be lost. Snapshots of thin volumes have no use for it",
	},
}

func keysOf(parameters []parameter) []string {
	keys := make([]string, 0, len(parameters))
	for _, p := range parameters {
		keys = append(keys, p.key)
	}
	return keys
}

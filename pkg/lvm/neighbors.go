package lvm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/bounded"
)

// Neighbors are the volume groups of one driver, each of which must live on when another one's disks hang: LVM reads the label of
// every disk that its filters let it see, whichever group a command is for, and so hangs in all groups (docs/adr/0026).
type Neighbors struct {
	mu     sync.Mutex
	groups []*neighbor
	pools  func() bool
}

// versionDevices is the first LVM that has --devices. WHATS_NEW of lvm2
var versionDevices = Version{2, 3, 12}

// NewNeighbors makes an account of groups; nil where LVM cannot be kept from disks.
func NewNeighbors(v Version) *Neighbors {
	if v.Less(versionDevices) {
		return nil
	}
	return &Neighbors{}
}

// DiskLister is a MetadataReader that knows the paths of its group's physical volumes. It says so at once, whatever hangs; nil:
// it does not know them yet.
type DiskLister interface {
	PhysicalVolumes() []string
}

const optionDevices = "--devices"

// answerLimit is how long a disk may take for one sector before the neighbors' commands leave it out. They are no worse for
// that, so it need not be certain that it hangs.
const answerLimit = 250 * time.Millisecond

type neighbor struct {
	group  string
	disks  DiskLister
	asked  *bounded.Question[struct{}]
	silent bool // when last was asked; guarded by Neighbors.mu
}

// join makes a group one of them.
func (n *Neighbors) join(group string, disks DiskLister) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.groups = append(n.groups, &neighbor{group: group, disks: disks, asked: bounded.New[struct{}](answerLimit)})
}

// SilentPools has commands of all groups kept from volumes, too, while the function says that a thin pool does not answer. LVM asks
// every device that its filters let it see for its status before it finds that it is a volume, and that of a thin volume hangs with
// its pool. It says so at once.
func (n *Neighbors) SilentPools(silent func() bool) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pools = silent
}

// silent says whether disks of other groups, or a pool, do not answer.
func (n *Neighbors) silent(ctx context.Context, group string) bool {
	n.mu.Lock()
	groups, pools := slices.Clone(n.groups), n.pools
	n.mu.Unlock()
	found := pools != nil && pools()
	for _, other := range groups {
		if other.group == group {
			continue
		}
		_, err := other.asked.Ask(func() (struct{}, error) {
			for _, path := range other.disks.PhysicalVolumes() {
				answers(path) // one that fails does not hang
			}
			return struct{}{}, nil
		})
		var silence *bounded.UnansweredError
		silent := errors.As(err, &silence)
		found = found || silent
		n.mu.Lock()
		changed := silent != other.silent
		other.silent = silent
		n.mu.Unlock()
		if changed && silent {
			klog.FromContext(ctx).Info("The disks of a volume group do not answer, and LVM is kept from them in the others", "volumeGroup", other.group)
		} else if changed {
			klog.FromContext(ctx).Info("The disks of a volume group answer again", "volumeGroup", other.group)
		}
	}
	return found
}

// confine keeps a command from all but its group's disks while others, or a pool, do not answer: --devices, lvmdevices(8). Not always: a disk
// that an administrator gives to the group between our look and the command would be missing for that command.
func (c *Client) confine(ctx context.Context, args []string) []string {
	if c.neighbors == nil || !c.neighbors.silent(ctx, c.group) {
		return args
	}
	own := slices.DeleteFunc(slices.Clone(c.reader.PhysicalVolumes()), func(path string) bool { return path == missingDisk })
	if len(own) == 0 {
		return args // nobody knows where they are: LVM has to look everywhere
	}
	return slices.Insert(slices.Clone(args), 1, optionDevices, strings.Join(own, ","))
}

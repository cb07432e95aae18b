package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/pkg/keylock"
	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// nodeEngine is what the node service needs of *storage.Engine.
type nodeEngine interface {
	Volume(ctx context.Context, id string) (storage.Volume, error)
	Activate(ctx context.Context, id string) (storage.Volume, error)
	Initialized(ctx context.Context, id string) error
	Deactivate(ctx context.Context, id string) error
	ExpandVolume(ctx context.Context, id string, requiredBytes, limitBytes int64) (storage.Volume, error)
	Pools(ctx context.Context) ([]storage.Pool, error)
}

var _ nodeEngine = (*storage.Engine)(nil)

// NodeOptions is what the node service works on.
type NodeOptions struct {
	NodeID      string
	Engine      nodeEngine
	FileSystems mount.FileSystems
	Mounts      mount.Mounts
}

// node serves csi.NodeServer.
type node struct {
	csi.UnimplementedNodeServer

	id     string
	engine nodeEngine
	fs     mount.FileSystems
	mounts mount.Mounts

	changing keylock.Set // volumes that something is done to
	looking  keylock.Set // volumes whose usage is being measured
}

// NewNode makes the node service. Its handlers return plain errors, for toStatus.
func NewNode(o NodeOptions) csi.NodeServer {
	return &node{id: o.NodeID, engine: o.Engine, fs: o.FileSystems, mounts: o.Mounts}
}

const (
	// changeLimit ends what can be ended of an operation that nobody waits for any more: the repair or the
	// growth of a large file system may take its time.
	changeLimit = time.Hour
	lookLimit   = time.Minute
)

// exclusive runs fn as the only operation on the volume. When ctx ends first, fn goes on, and until it is done
// all other calls for the volume are told so (Aborted).
func exclusive[T any](ctx context.Context, n *node, id string, fn func(ctx context.Context) (T, error)) (T, error) {
	v, err := keylock.Do(ctx, &n.changing, "volume "+id, changeLimit, fn)
	return v, classify(err)
}

// classified is an error of pkg/mount with the engine's error that it amounts to.
type classified struct{ err, class error }

func (c classified) Error() string   { return c.err.Error() }
func (c classified) Unwrap() []error { return []error{c.err, c.class} }

// classes translates the errors of the packages below into those that toStatus knows.
var classes = []struct{ from, to error }{
	{keylock.ErrHeld, storage.ErrPending},
	{mount.ErrInUse, storage.ErrInUse},
	{mount.ErrReadOnly, storage.ErrInUse},
	{mount.ErrDamaged, storage.ErrDamaged},
	{mount.ErrPath, storage.ErrInvalid},
	{mount.ErrFlag, storage.ErrInvalid},
}

func classify(err error) error {
	for _, c := range classes {
		if errors.Is(err, c.from) {
			return classified{err: err, class: c.to}
		}
	}
	return err
}

// failedPrecondition is for what the CO should have done before; none of the engine's errors says that.
func failedPrecondition(format string, args ...any) error {
	return status.Errorf(codes.FailedPrecondition, format, args...)
}

// checkFields looks whether a request has what it needs: first all that must be there and well-formed
// (InvalidArgument), and then whether the id can be a volume's at all (NotFound).
func checkFields(volumeID string, paths ...pathField) error {
	if err := required("volume_id", volumeID); err != nil {
		return err
	}
	for _, p := range paths {
		if err := required(p.field, p.path); err != nil {
			return err
		}
		if err := p.check(); err != nil {
			return err
		}
	}
	return checkVolumeID(volumeID)
}

type pathField struct{ field, path string }

func (p pathField) check() error {
	if err := mount.CheckPath(p.path); err != nil {
		return fmt.Errorf("%w: %s: %w", storage.ErrInvalid, p.field, err)
	}
	return nil
}

func checkVolumeID(id string) error {
	h, err := storage.ParseHandle(id)
	if err != nil {
		return err
	}
	if !h.IsVolume() {
		return fmt.Errorf("%w: %s is not a volume", storage.ErrNotFound, id)
	}
	return nil
}

// place is a path, with what is mounted there.
type place struct {
	at   *mount.Point
	ours bool // it is the volume's
}

// mountsOf finds the volume's mounts, and what of them is at the paths.
func (n *node) mountsOf(ctx context.Context, vol storage.Volume, paths ...string) ([]mount.Point, []place, error) {
	points, err := n.mounts.Of(ctx, vol.DevicePath)
	if err != nil {
		return nil, nil, err
	}
	places := make([]place, len(paths))
	for i, path := range paths {
		at, err := n.mounts.At(ctx, path)
		if err != nil {
			return nil, nil, err
		}
		places[i] = place{at: at, ours: at != nil && slices.ContainsFunc(points, sameAs(at))}
	}
	return points, places, nil
}

func sameAs(at *mount.Point) func(mount.Point) bool {
	return func(p mount.Point) bool { return at != nil && p.ID == at.ID }
}

// targets are the places where the volume is published, by the kernel's account: the driver may have been
// restarted since. Binds of a directory inside the volume are kubelet's subPaths.
func targets(points []mount.Point, except ...*mount.Point) []mount.Point {
	var out []mount.Point
	for _, p := range points {
		is := func(at *mount.Point) bool { return sameAs(at)(p) }
		if (p.Block || p.Root == "/") && !slices.ContainsFunc(except, is) {
			out = append(out, p)
		}
	}
	return out
}

func pathsOf(points []mount.Point) []string {
	out := make([]string, 0, len(points))
	for _, p := range points {
		out = append(out, p.Path)
	}
	return out
}

// NodeGetInfo implements csi.NodeServer.
func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId:             n.id,
		AccessibleTopology: topologyOf(n.id)[0],
	}, nil
}

var nodeCapabilities = []csi.NodeServiceCapability_RPC_Type{
	csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
	csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
	csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
	csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
	csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH,
}

// NodeGetCapabilities implements csi.NodeServer.
func (n *node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	res := &csi.NodeGetCapabilitiesResponse{}
	for _, c := range nodeCapabilities {
		res.Capabilities = append(res.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: c}},
		})
	}
	return res, nil
}

// Package requests makes CSI requests that nobody would send, for every RPC that there is, and knows what LVM may be given for
// them: each field is absent, a value that is likely to hurt, or one that is right, so that some requests get far.
package requests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

const mib = int64(1) << 20

// RandomBytes are always the same for a seed.
func RandomBytes(seed uint64) []byte {
	source := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // repeatable on purpose
	data := make([]byte, 600)
	for i := range data {
		data[i] = byte(source.Uint32())
	}
	return data
}

// Methods are the RPCs of CSI that the driver serves or refuses.
func Methods() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	services := csi.File_csi_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			all = append(all, methods.Get(j))
		}
	}
	return all
}

var (
	// Nasty are texts that are likely to hurt.
	Nasty = []string{
		"", "-", "--", "--config", "-y", "x;reboot", "$(reboot)", "`reboot`", "a b", "a\nb", "a\x00b", "\x7f", "\u202e", "ä/ö", "../..", "/", "//",
		"/etc/shadow", "relative/path", "/a/../b", "%s%n", "'", "\"", "\\", "@all", "a=b", "a&b", "!!", "#", "*", "lvmsnap.driver=csi.lvmsnap.io",
		strings.Repeat("x", 128), strings.Repeat("x", 129), strings.Repeat("/x", 3000), strings.Repeat("ü", 64),
	}
	// Known are texts that mean something to the driver.
	Known = []string{
		"volumeGroup", "thinPool", "type", "stripes", "stripeSize", "raidType", "mirrors", "cowSize", "thin", "thick", "pool",
		"ext4", "xfs", "btrfs", "1Gi", "64Ki", "1", "2", "raid1", "noatime", "nouuid", "csi.storage.k8s.io/pvc/name", "csi.storage.k8s.io/fstype",
		"topology.csi.lvmsnap.io/node",
	}
	numbers = []int64{0, 1, -1, 2, 4096, mib, 8 * mib, 1 << 40, 1 << 60, math.MaxInt64, math.MinInt64}
)

// Volumes are handles of what is not the driver's, on the node of one that is.
func Volumes(handle string) []string {
	node, _, _ := strings.Cut(strings.TrimPrefix(handle, "v1/"), "/")
	var out []string
	for _, lv := range []string{"theirs", "csi-v-theirs", "pool", "csi-v-../../x", "csi-v---config", "csi-s-$(reboot)"} {
		out = append(out, "v1/"+node+"/"+lv)
	}
	return out
}

// Call makes one, of whatever kind.
func Call(ctx context.Context, conn *grpc.ClientConn, method protoreflect.MethodDescriptor, req proto.Message) error {
	name := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if !method.IsStreamingServer() {
		return conn.Invoke(ctx, name, req, dynamicpb.NewMessage(method.Output()))
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(req); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		if err := stream.RecvMsg(dynamicpb.NewMessage(method.Output())); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

var (
	options = strings.Fields(`--type --virtualsize --name --setactivationskip --activate --addtag --deltag --thinpool --permission --size --chunksize
		--stripes --stripesize --mirrors --zero --wipesignatures --snapshot --select --yes --ignoreactivationskip --refresh --units --options --nosuffix
		--config --reportformat --extents --nolocking`)
	harmless = regexp.MustCompile(`^[A-Za-z0-9_+./=!:&,%@][A-Za-z0-9_+./=!:&,%@-]*$`)
	objects  = regexp.MustCompile(`^[a-z0-9-]+(/(pool|csi-[a-z]+-[a-z0-9.-]+))?$`)
)

// CheckCommand says what LVM must not have been given: arguments are from a list of known options or of harmless characters, and
// what is worked on is one of the groups or an LV in it that may be the driver's.
func CheckCommand(argv []string, groups ...string) error {
	for _, arg := range argv[1:] {
		if strings.HasPrefix(arg, "-") && !slices.Contains(options, arg) || !strings.HasPrefix(arg, "-") && !harmless.MatchString(arg) {
			return fmt.Errorf("LVM was given %q in %q", arg, argv)
		}
	}
	object := argv[len(argv)-1]
	if group, _, _ := strings.Cut(object, "/"); !objects.MatchString(object) || !slices.Contains(groups, group) {
		return fmt.Errorf("LVM was to work on %q: %q", object, argv)
	}
	return nil
}

// Maker makes messages of bytes.
type Maker struct {
	Data    []byte
	Strings []string
	Right   []proto.Message
}

// Next makes the next request; ok is false when the bytes are used up.
func (m *Maker) Next(methods []protoreflect.MethodDescriptor) (method protoreflect.MethodDescriptor, req *dynamicpb.Message, ok bool) {
	if !m.left() {
		return nil, nil, false
	}
	method = methods[int(m.next())%len(methods)]
	req = dynamicpb.NewMessage(method.Input())
	if len(m.Right) > 0 && m.next()%4 != 0 {
		right := m.Right[int(m.next())%len(m.Right)]
		input := right.ProtoReflect().Descriptor().FullName()
		if i := slices.IndexFunc(methods, func(d protoreflect.MethodDescriptor) bool { return d.Input().FullName() == input }); i >= 0 {
			method, req = methods[i], dynamicpb.NewMessage(methods[i].Input())
			m.spoil(right, req)
			return method, req, true
		}
	}
	m.fill(req, 0)
	return method, req, true
}

func (m *Maker) left() bool { return len(m.Data) > 0 }

func (m *Maker) next() byte {
	if !m.left() {
		return 0
	}
	b := m.Data[0]
	m.Data = m.Data[1:]
	return b
}

func (m *Maker) fill(msg protoreflect.Message, depth int) {
	fields := msg.Descriptor().Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); m.next()%4 != 0 && depth < 5 {
			m.set(msg, fd, depth)
		}
	}
}

func (m *Maker) set(msg protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) {
	switch {
	case fd.IsMap():
		entries := msg.Mutable(fd).Map()
		for range m.next() % 4 {
			entries.Set(m.scalar(fd.MapKey()).MapKey(), m.scalar(fd.MapValue()))
		}
	case fd.IsList():
		list := msg.Mutable(fd).List()
		for range m.next() % 4 {
			if fd.Message() != nil {
				m.fill(list.AppendMutable().Message(), depth+1)
			} else {
				list.Append(m.scalar(fd))
			}
		}
	case fd.Message() != nil:
		m.fill(msg.Mutable(fd).Message(), depth+1)
	default:
		msg.Set(fd, m.scalar(fd))
	}
}

func (m *Maker) scalar(fd protoreflect.FieldDescriptor) protoreflect.Value {
	number := numbers[int(m.next())%len(numbers)]
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(m.text())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(bytes.Repeat([]byte{m.next()}, int(m.next())))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(number%2 == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(m.next()) % 9))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(number))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(number)
	default:
		return fd.Default()
	}
}

func (m *Maker) text() string {
	if m.next()%16 == 0 { // anything at all
		n := min(int(m.next()), len(m.Data))
		text := strings.ToValidUTF8(string(m.Data[:n]), "?")
		m.Data = m.Data[n:]
		return text
	}
	return m.Strings[int(m.next())%len(m.Strings)]
}

// Objects are what the right requests name.
type Objects struct {
	Volume, Snapshot string // handles; their names are v and s
	Dir              string // with the staging and target paths
	Capability       *csi.VolumeCapability
	Parameters       map[string]string
}

// Right are requests that get far, for Maker to spoil.
func (o Objects) Right() []proto.Message {
	staging, target, size := o.Dir+"/staging", o.Dir+"/target", &csi.CapacityRange{RequiredBytes: 16 * mib}
	create := &csi.CreateVolumeRequest{Name: "v", CapacityRange: size, VolumeCapabilities: []*csi.VolumeCapability{o.Capability}, Parameters: o.Parameters}
	cut := &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: o.Volume}
	return []proto.Message{
		create, create, cut, // more often than they are deleted
		&csi.CreateVolumeRequest{
			Name: "r", CapacityRange: size, VolumeCapabilities: []*csi.VolumeCapability{o.Capability}, Parameters: o.Parameters,
			VolumeContentSource: &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
				Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: o.Snapshot},
			}},
		},
		cut,
		&csi.ControllerExpandVolumeRequest{VolumeId: o.Volume, CapacityRange: &csi.CapacityRange{RequiredBytes: 32 * mib}, VolumeCapability: o.Capability},
		&csi.NodeStageVolumeRequest{VolumeId: o.Volume, StagingTargetPath: staging, VolumeCapability: o.Capability},
		&csi.NodePublishVolumeRequest{VolumeId: o.Volume, StagingTargetPath: staging, TargetPath: target, VolumeCapability: o.Capability},
		&csi.NodeExpandVolumeRequest{VolumeId: o.Volume, VolumePath: staging, CapacityRange: &csi.CapacityRange{RequiredBytes: 48 * mib}},
		&csi.NodeGetVolumeStatsRequest{VolumeId: o.Volume, VolumePath: target},
		&csi.NodeUnpublishVolumeRequest{VolumeId: o.Volume, TargetPath: target},
		&csi.NodeUnstageVolumeRequest{VolumeId: o.Volume, StagingTargetPath: staging},
		&csi.DeleteSnapshotRequest{SnapshotId: o.Snapshot},
		&csi.DeleteVolumeRequest{VolumeId: o.Volume},
	}
}

// spoil copies a right request and changes at most two of its fields.
func (m *Maker) spoil(right proto.Message, req *dynamicpb.Message) {
	bytes, err := proto.Marshal(right)
	if err == nil {
		err = proto.Unmarshal(bytes, req)
	}
	if err != nil {
		panic(err) // a message of our own
	}
	fields := req.Descriptor().Fields()
	for range max(0, int(m.next()%4)-1) {
		fd := fields.Get(int(m.next()) % fields.Len())
		req.Clear(fd)
		if m.next()%3 != 0 {
			m.set(req, fd, 0)
		}
	}
}

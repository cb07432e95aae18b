package driver

import (
	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-lib-utils/protosanitizer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// mountFlagsField "MAY contain sensitive information" (spec, VolumeCapability.MountVolume), but is not marked
// csi_secret, so that protosanitizer leaves it as it is.
var mountFlagsField = (&csi.VolumeCapability_MountVolume{}).ProtoReflect().Descriptor().Fields().ByName("mount_flags").FullName()

// stripped is protosanitizer's word for what it took out.
const stripped = "***stripped***"

// redacted is a message fit for the log. It does its work only when it is printed.
type redacted struct{ message any }

// String is the message as JSON, without secrets and mount flags.
func (r redacted) String() string {
	m, ok := r.message.(proto.Message)
	if !ok || m == nil || !m.ProtoReflect().IsValid() {
		return "null"
	}
	m = proto.Clone(m) // the caller still needs the mount flags
	stripMountFlags(m.ProtoReflect())
	return protosanitizer.StripSecrets(m).String()
}

func stripMountFlags(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.FullName() == mountFlagsField:
			for i := range v.List().Len() {
				v.List().Set(i, protoreflect.ValueOfString(stripped))
			}
		case fd.IsMap() || fd.Kind() != protoreflect.MessageKind:
			// In CSI, no map holds messages.
		case fd.IsList():
			for i := range v.List().Len() {
				stripMountFlags(v.List().Get(i).Message())
			}
		default:
			stripMountFlags(v.Message())
		}
		return true
	})
}

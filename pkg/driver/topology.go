package driver

import (
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// TopologyKey is the driver's only topology domain: the node. Its segment is the node's id.
const TopologyKey = "topology.csi.lvmsnap.io/node"

// topologyOf is where the objects of a node are accessible from, and nowhere else.
func topologyOf(nodeID string) []*csi.Topology {
	return []*csi.Topology{{Segments: map[string]string{TopologyKey: nodeID}}}
}

// checkTopology says whether this node may hold an object that the CO wants in a certain place. It may if it is
// one of requisite; where that is not given, one of preferred. ErrNoSpace makes the scheduler try another node
// (CSI spec, CreateVolume errors: "Unable to provision in accessible_topology").
func checkTopology(nodeID string, req *csi.TopologyRequirement) error {
	if req == nil {
		return nil
	}
	places := req.GetRequisite()
	if len(places) == 0 {
		places = req.GetPreferred()
	}
	if len(places) == 0 {
		return fmt.Errorf("%w: accessibility_requirements has neither requisite nor preferred", storage.ErrInvalid)
	}
	for _, place := range places {
		if place.GetSegments()[TopologyKey] == nodeID {
			return nil
		}
	}
	return fmt.Errorf("%w: accessibility_requirements do not include this node (%s=%s)", storage.ErrNoSpace, TopologyKey, nodeID)
}

// coversNode says whether a topology includes this node; one without segments includes every node.
func coversNode(nodeID string, place *csi.Topology) bool {
	return len(place.GetSegments()) == 0 || place.GetSegments()[TopologyKey] == nodeID
}

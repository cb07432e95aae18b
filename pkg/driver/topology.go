package driver

// TopologyKey is the topology segment of a node's own storage: its value is the node id.
const TopologyKey = "topology.csi.lvmsnap.io/node"

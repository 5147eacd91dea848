// What a node tells about itself: the value of its field in the hash `sluice:nodes:info`, as JSON that redis-cli shows.

import FoundationEssentials
package import Primitives

/// Where the cluster's membership lives in Redis.
package enum MembershipKeys {
    /// A sorted set: the member is a node id, the score is when it was last seen, by the server's clock, in
    /// microseconds since 1970 (`RedisTime`; exact in a double until 2255).
    package static let nodes = "sluice:nodes"
    /// A hash: the field is a node id, the value is `NodeInfo` as JSON.
    package static let info = "sluice:nodes:info"

    /// A key of what the nodes share, as a server has it. On a cluster a transaction's keys must share a slot: what the
    /// nodes share is little, and all of it lies in that of `{sluice}`.
    package static func placed(_ name: String, onCluster: Bool) -> String {
        onCluster ? "{sluice}\(name.dropFirst("sluice".count))" : name
    }
}

/// Why a value of `sluice:nodes:info` was not understood.
package enum NodeInfoError: Error, Equatable, Sendable, CustomStringConvertible {
    case tooLong(bytes: Int)
    case malformed
    case badBoot
    case badAddress

    package var description: String {
        switch self {
        case .tooLong(let bytes): "\(bytes) bytes of node information, at most \(NodeInfo.bytesMax) are read"
        case .malformed: "node information that is no JSON of the expected shape"
        case .badBoot: "a boot value that is not 16 hexadecimal digits"
        case .badAddress: "an address that is too long or holds control characters"
        }
    }
}

/// A node's own description of itself.
package struct NodeInfo: Hashable, Sendable {
    /// Three times what a node writes; more is not from a node.
    package static let bytesMax = 1024
    /// A host name of at most 253 characters (RFC 1035 §2.3.4) and a port.
    package static let addressBytesMax = 260

    /// Where its clients reach it, as configured or found: `10.0.0.5:8080`.
    package var address: String
    /// Where another node finds out whether this one runs: the same in numbers. `nil` where no other could.
    package var reach: SocketAddress?
    package var boot: BootID
    /// How often it announces itself. Nodes with other settings judge it by this one.
    package var heartbeat: TimeSpan
    /// `nil` from nodes that do not say.
    package var activity: NodeActivity?
    /// The configuration that it goes by: the cluster's version, or a hash of its own file.
    package var configuration: String?
    /// Whether it takes the cluster's configuration, and has a vote on the next.
    package var follows = false

    package init(address: String, boot: BootID, heartbeat: TimeSpan) {
        self.address = address
        self.boot = boot
        self.heartbeat = heartbeat
    }

    private struct Wire: Codable {
        var address: String
        var boot: String
        var heartbeatMilliseconds: Int64?
        var activity: NodeActivity?
        var configuration: String?
        var follows: Bool?
        var reach: String?
    }

    package var json: String {
        let wire = Wire(
            address: address, boot: boot.description, heartbeatMilliseconds: max(1, heartbeat.milliseconds),
            activity: activity, configuration: configuration, follows: follows ? true : nil,
            reach: reach?.description)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(wire) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }

    /// Reads what a node wrote. A heartbeat that is absent or out of 10 ms to 1 min is taken as `assumed`.
    package init(json bytes: [UInt8], assumed: TimeSpan) throws(NodeInfoError) {
        if bytes.count > Self.bytesMax { throw .tooLong(bytes: bytes.count) }
        guard let wire = try? JSONDecoder().decode(Wire.self, from: Data(bytes)) else { throw .malformed }
        guard let boot = BootID(hex: wire.boot) else { throw .badBoot }
        guard wire.address.utf8.count <= Self.addressBytesMax,
            wire.address.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7f })
        else { throw .badAddress }
        address = wire.address
        self.boot = boot
        activity = wire.activity.flatMap { $0.isPlausible ? $0 : nil }
        heartbeat = assumed
        // Printed as it stands: as long as a hash, and of its letters.
        if let text = wire.configuration, text.utf8.count <= 32, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) {
            configuration = text
        }
        follows = wire.follows ?? false
        reach = wire.reach.flatMap { SocketAddress($0) }
        if let milliseconds = wire.heartbeatMilliseconds, (10...60_000).contains(milliseconds) {
            heartbeat = .milliseconds(milliseconds)
        }
    }
}

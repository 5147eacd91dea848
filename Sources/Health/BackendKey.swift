// How backends are named among nodes, and where their health lives in Redis.

package import Membership
package import Primitives

/// A backend: the service that it belongs to, and its URL as the configuration writes it.
package struct BackendKey: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var service: String
    package var url: String

    package init(service: String, url: String) {
        self.service = service
        self.url = url
    }

    package static func < (a: BackendKey, b: BackendKey) -> Bool {
        a.service == b.service
            ? a.url.utf8.lexicographicallyPrecedes(b.url.utf8)
            : a.service.utf8.lexicographicallyPrecedes(b.service.utf8)
    }

    package var description: String { "\(service) \(url)" }
}

package enum HealthKeys {
    /// Every change of a verdict is published here, as `HealthNews`.
    package static let channel = "sluice:health"

    /// A hash with one field for each backend and node, `BACKEND|NODE`; the value is a `HealthVerdict` as JSON.
    package static func hash(service: String) -> String { "sluice:health:\(service)" }

    /// Every probe in turn is told here, as `ProbeReport`.
    package static let probesChannel = "sluice:probes"

    /// A hash with one field for each backend: the last `ProbeReport` as JSON.
    package static func probes(service: String) -> String { "sluice:probes:\(service)" }

    /// A service that nobody has probed for so long is none any more.
    package static let probesLifetime = TimeSpan.seconds(86_400)

    /// Longest value that is read.
    package static let valueBytesMax = WireJSON.bytesMax

    package static func field(url: String, node: NodeID) -> String { "\(url)|\(node)" }

    /// Longest field that is read: a URL of 2 KiB, `|`, and a node id.
    private static let fieldBytesMax = 2048 + 1 + NodeID.bytesMax

    /// Takes a field apart at its last `|`: a URL may hold one, a node id cannot.
    package static func parse(field: String) throws(HealthFormatError) -> (url: String, node: NodeID) {
        if field.utf8.count > fieldBytesMax { throw .tooLong(bytes: field.utf8.count) }
        guard let bar = field.lastIndex(of: "|"), bar > field.startIndex else { throw .badField }
        return (String(field[..<bar]), try WireJSON.node(field[field.index(after: bar)...]))
    }
}

/// Why something that was read from Redis was ignored.
package enum HealthFormatError: Error, Equatable, Sendable, CustomStringConvertible {
    case tooLong(bytes: Int)
    case malformed
    case badField
    case badNode
    case badBoot
    case badEvidence

    package var description: String {
        switch self {
        case .tooLong(let bytes): "\(bytes) bytes, more than any node writes"
        case .malformed: "no JSON of the expected shape"
        case .badField: "a field that is not BACKEND|NODE"
        case .badNode: "a name that is no node id"
        case .badBoot: "a boot value that is not 16 hexadecimal digits"
        case .badEvidence: "an evidence text that is too long or holds control characters"
        }
    }
}

// What each node has in flight, told to the others many times a second, so that least connections can count over the
// cluster: clients that reach the nodes unevenly must not load a backend unevenly.
//
// Nothing is kept in Redis. A message that is lost is made good by the next, and a node that falls silent counts no
// more: its requests end sooner than anybody could tell.

package import Membership
package import Primitives

package struct LoadNews: Hashable, Sendable {
    package static let channel = "sluice:load"
    /// How often a node tells; half of what a reader may rely on.
    package static let interval = TimeSpan.milliseconds(50)
    /// The same where nothing changes.
    package static let idleInterval = TimeSpan.milliseconds(250)
    /// A node that was silent for so long counts no more.
    package static let lifetime = TimeSpan.seconds(1)
    /// A thousand services of a thousand backends would take more; nobody runs them on one gateway.
    private static let jsonBytesMax = 1 << 20
    private static let requestsMax = 1 << 31

    package var node: NodeID
    package var boot: BootID
    package var sequence: UInt64
    /// Requests in flight by service and URL; what is absent is zero.
    package var inFlight: [String: [String: Int]]

    package init(node: NodeID, boot: BootID, sequence: UInt64, inFlight: [String: [String: Int]]) {
        self.node = node
        self.boot = boot
        self.sequence = sequence
        self.inFlight = inFlight
    }

    private struct Wire: Codable {
        var node: String
        var boot: String
        var sequence: UInt64
        var inFlight: [String: [String: Int]]
    }

    package var json: String {
        WireJSON.text(Wire(node: node.text, boot: boot.description, sequence: sequence, inFlight: inFlight))
    }

    package init(json bytes: [UInt8]) throws(HealthFormatError) {
        let wire: Wire = try WireJSON.read(bytes, bytesMax: Self.jsonBytesMax)
        boot = try WireJSON.boot(wire.boot)
        guard wire.inFlight.values.allSatisfy({ $0.values.allSatisfy { (0...Self.requestsMax).contains($0) } }) else {
            throw .malformed
        }
        node = try WireJSON.node(wire.node)
        sequence = wire.sequence
        inFlight = wire.inFlight
    }
}

/// The last word of each other node.
package struct LoadTable: Sendable {
    private struct Entry {
        var news: LoadNews
        var heardAt: MonotonicTime
    }

    private let node: NodeID
    private var entries: [NodeID: Entry] = [:]

    package init(node: NodeID) { self.node = node }

    /// Returns whether it was news.
    package mutating func heard(_ news: LoadNews, at now: MonotonicTime) -> Bool {
        guard news.node != node, entries[news.node] != nil || entries.count < MembershipView.membersMax else {
            return false
        }
        if let entry = entries[news.node], entry.news.boot == news.boot, entry.news.sequence >= news.sequence {
            return false
        }
        entries[news.node] = Entry(news: news, heardAt: now)
        return true
    }

    /// Forgets who has been silent for too long. Returns whether there was anybody.
    package mutating func expire(at now: MonotonicTime) -> Bool {
        let before = entries.count
        entries = entries.filter { now - $0.value.heardAt < LoadNews.lifetime }
        return entries.count != before
    }

    package mutating func forgetAll() { entries = [:] }

    /// What all others have in flight at this backend.
    package func total(of key: BackendKey) -> Int {
        entries.values.reduce(0) { $0 + ($1.news.inFlight[key.service]?[key.url] ?? 0) }
    }
}

// Who holds which slots of a Redis Cluster, as a value that does no I/O: what `CLUSTER SLOTS` says, and what
// redirections add to it.

package import Hiredis

package struct ClusterMap: Equatable, Sendable {
    /// The primaries, in the order of their first slots.
    package private(set) var primaries: [RedisEndpoint.Location] = []
    /// An index into `primaries`, or `nobody`.
    private var owners = [UInt16](repeating: nobody, count: KeySlot.count)

    private static let nobody = UInt16.max

    package init() {}

    /// What `CLUSTER SLOTS` answered.
    ///
    /// - Parameter asked: who answered: a server that does not know its own address leaves it empty.
    /// - Returns: `nil` where the answer has another shape.
    package init?(_ reply: Reply, askedAt asked: RedisEndpoint.Location) {
        // [[first last [host port id [more]] replica …] …]
        guard let ranges = reply.elementCount(0) else { return nil }
        var index = 1
        for _ in 0..<ranges {
            guard let parts = reply.elementCount(index), parts >= 3, let first = reply.integer(index + 1),
                let last = reply.integer(index + 2), 0 <= first, first <= last, last < Int64(KeySlot.count),
                reply.elementCount(index + 3) ?? 0 >= 2, let port = reply.integer(index + 5),
                let number = UInt16(exactly: port)
            else { return nil }
            let host = reply.text(index + 4)
            let location = Self.location(host: host, port: number, askedAt: asked)
            for slot in Int(first)...Int(last) { assign(slot, to: location) }
            index = reply.end(of: index)
        }
    }

    private static func location(
        host: String, port: UInt16, askedAt asked: RedisEndpoint.Location
    ) -> RedisEndpoint.Location {
        guard host.isEmpty || host == "?" else { return .tcp(host: host, port: port) }
        switch asked {
        case .tcp(let host, let own): return .tcp(host: host, port: port == 0 ? own : port)
        case .unix: return asked
        }
    }

    private mutating func assign(_ slot: Int, to location: RedisEndpoint.Location) {
        let place: Int
        if let found = primaries.firstIndex(of: location) {
            place = found
        } else {
            guard primaries.count < Int(Self.nobody) else { return }
            place = primaries.count
            primaries.append(location)
        }
        owners[slot] = UInt16(place)
    }

    package func owner(of slot: Int) -> RedisEndpoint.Location? {
        index(of: slot).map { primaries[$0] }
    }

    /// The owner's place among `primaries`.
    package func index(of slot: Int) -> Int? {
        let owner = owners[slot]
        return owner == Self.nobody ? nil : Int(owner)
    }

    /// A server said `MOVED`: this slot is known to be elsewhere before the whole is asked for again.
    package mutating func moved(_ slot: Int, to location: RedisEndpoint.Location) { assign(slot, to: location) }

    /// Some slot of each primary that has any.
    package var firstSlots: [Int?] {
        var first = [Int?](repeating: nil, count: primaries.count)
        for slot in owners.indices where owners[slot] != Self.nobody && first[Int(owners[slot])] == nil {
            first[Int(owners[slot])] = slot
        }
        return first
    }
}

/// What a server of a cluster says when a key is not its own.
package enum Redirection: Equatable, Sendable {
    /// The slot is that server's for good.
    case moved(slot: Int, to: RedisEndpoint.Location)
    /// The slot is moving, and this key has moved or is new: ask there, this once.
    case ask(slot: Int, at: RedisEndpoint.Location)
    /// The slot is moving and keys of one command are apart: soon they are together.
    case tryAgain

    /// - Parameters:
    ///   - text: the error, without the leading `-`.
    ///   - asked: who said it.
    package init?(_ text: String, from asked: RedisEndpoint.Location) {
        let words = text.split(separator: " ")
        if words.first == "TRYAGAIN" {
            self = .tryAgain
            return
        }
        guard words.count == 3, words[0] == "MOVED" || words[0] == "ASK", let slot = Int(words[1]),
            (0..<KeySlot.count).contains(slot), let colon = words[2].lastIndex(of: ":"),
            let port = UInt16(words[2][words[2].index(after: colon)...]), port > 0
        else { return nil }
        // An IPv6 address stands without brackets here; an empty host is the one that was asked.
        let host = words[2][..<colon]
        let location: RedisEndpoint.Location
        if host.isEmpty {
            guard case .tcp(let own, _) = asked else { return nil }
            location = .tcp(host: own, port: port)
        } else {
            location = .tcp(host: String(host), port: port)
        }
        self = words[0] == "MOVED" ? .moved(slot: slot, to: location) : .ask(slot: slot, at: location)
    }
}

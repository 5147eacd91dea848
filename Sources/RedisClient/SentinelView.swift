// What sentinels say about one service, as a value that does no I/O.
//
// Sentinels are believed about the place only: whoever is connected to by it still has to say by ROLE that it is the
// primary. So a sentinel that is cut off, or has not heard of a failover yet, leads nobody to a replica.

import Hiredis

struct SentinelView: Sendable {
    let service: String
    /// Where the primary is, as last told.
    private(set) var primary: RedisEndpoint.Location?

    enum Answer: Equatable {
        case primary(RedisEndpoint.Location)
        /// This sentinel does not watch a service of that name, or not yet.
        case unknown
        case malformed
    }

    init(service: String) { self.service = service }

    /// What `SENTINEL GET-MASTER-ADDR-BY-NAME` answered: host and port, or nothing.
    mutating func answered(_ reply: Reply) -> Answer {
        if reply.count == 1, reply.kind(0) == .null || reply.elementCount(0) == 0 { return .unknown }
        guard reply.elementCount(0) == 2, reply.count == 3, reply.kind(1) == .bulk,
            let location = Self.location(reply.text(1), reply.text(2))
        else { return .malformed }
        primary = location
        return .primary(location)
    }

    /// Says at the end of a failover where the primary is: `service old-host old-port new-host new-port`.
    static let switched = "+switch-master"
    /// Says, on the sentinel that leads a failover, that a replica has become the primary: `slave name host port @ service
    /// old-host old-port`. It says `switched` last of all, when the other replicas follow.
    static let promoted = "+promoted-slave"

    /// A message on one of the two. Returns the new place where it is about this service.
    mutating func heard(_ channel: String, _ payload: String) -> RedisEndpoint.Location? {
        let words = payload.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
        let place: (host: String, port: String)
        switch channel {
        case Self.switched where words.count == 5 && words[0] == service: place = (words[3], words[4])
        case Self.promoted where words.count == 8 && words[4] == "@" && words[5] == service:
            place = (words[2], words[3])
        default: return nil
        }
        guard let location = Self.location(place.host, place.port) else { return nil }
        primary = location
        return location
    }

    private static func location(_ host: String, _ port: String) -> RedisEndpoint.Location? {
        guard !host.isEmpty, let number = UInt16(port), number > 0, !host.utf8.contains(0) else { return nil }
        return .tcp(host: host, port: number)
    }
}

// What stands between a node and its Redis: a word for counting, and a sentence about what to do.

package import Primitives
import Synchronization

/// The causes that operators can tell apart, because each has a remedy of its own.
package enum RedisCause: Int, CaseIterable, Sendable {
    /// Nobody listens, the name does not resolve, or the connection broke.
    case unreachable
    /// Connected, and no answer in time: the server hangs or is overloaded, or the network swallows what is sent.
    case silent
    /// The server is reading its data from disk.
    case loading
    /// It is a replica: the name or address does not lead to the primary any more.
    case readOnly
    /// A replica without its primary.
    case masterDown
    case outOfMemory
    /// The user or the password is missing, wrong, or not asked for.
    case login
    /// It serves as many connections as it may.
    case maxClients
    /// It is in protected mode and serves its own machine alone.
    case denied
    /// The user may not run a command, or not on our keys.
    case permission
    /// Slots of the cluster have no server.
    case clusterDown
    /// The key lives on another server of a cluster.
    case moved
    /// Persistence fails and the server takes no writes (`MISCONF`), a script holds it (`BUSY`), too few replicas follow
    /// (`NOREPLICAS`), or a slot is being moved to another server (`ASK`, `TRYAGAIN`).
    case unavailable
    /// The key holds something else.
    case wrongType
    /// No Redis, or one that is out of step.
    case malformed
    /// A certificate that does not hold, or a server that is not what it should be.
    case untrusted
    case other

    /// - Parameter text: what the server said, without the leading `-`.
    package init(errorText text: String) {
        // A refused EXEC says why behind its own word.
        if text.hasPrefix("EXECABORT "), let reason = text.firstRange(of: "because of: ")?.upperBound {
            self.init(errorText: String(text[reason...]))
            return
        }
        if text.hasPrefix("ERR max number of clients") {
            self = .maxClients
            return
        }
        if Self.knowsNoPassword(text) {
            self = .login
            return
        }
        switch text.prefix(while: { $0 != " " }) {
        case "LOADING": self = .loading
        case "READONLY": self = .readOnly
        case "MASTERDOWN": self = .masterDown
        case "OOM": self = .outOfMemory
        case "NOAUTH", "WRONGPASS": self = .login
        case "DENIED": self = .denied
        case "NOPERM": self = .permission
        case "CLUSTERDOWN": self = .clusterDown
        // Of keys that one server of a cluster holds too, but in several slots.
        case "MOVED", "CROSSSLOT": self = .moved
        case "MISCONF", "BUSY", "NOREPLICAS", "ASK", "TRYAGAIN": self = .unavailable
        case "WRONGTYPE": self = .wrongType
        default: self = .other
        }
    }

    /// Whether this is the answer to a password where none is set.
    static func knowsNoPassword(_ text: String) -> Bool {
        text.hasPrefix("ERR AUTH <password> called without any password")
            || text.hasPrefix("ERR Client sent AUTH, but no password is set")
    }

    /// Whether another connection may lead to a server that does not say this.
    package var asksForAnotherConnection: Bool {
        switch self {
        case .readOnly, .masterDown, .login, .moved, .untrusted: true
        // Rights that are granted hold for connections that are open, too.
        case .unreachable, .silent, .loading, .outOfMemory, .maxClients, .denied, .permission, .clusterDown,
            .unavailable, .wrongType, .malformed, .other:
            false
        }
    }

    /// Whether who says this is a server that lives, knows us, and only does not do what it was asked for at the moment.
    var isOfLivingServer: Bool {
        switch self {
        case .loading, .outOfMemory, .permission, .clusterDown, .unavailable: true
        case .unreachable, .silent, .readOnly, .masterDown, .login, .maxClients, .denied, .moved, .wrongType,
            .malformed, .untrusted, .other:
            false
        }
    }

    /// Stable: part of `GET /api/redis`.
    package var name: String {
        switch self {
        case .unreachable: "unreachable"
        case .silent: "silent"
        case .loading: "loading"
        case .readOnly: "readOnly"
        case .masterDown: "masterDown"
        case .outOfMemory: "outOfMemory"
        case .login: "login"
        case .maxClients: "maxClients"
        case .denied: "denied"
        case .permission: "permission"
        case .clusterDown: "clusterDown"
        case .moved: "moved"
        case .unavailable: "unavailable"
        case .wrongType: "wrongType"
        case .malformed: "malformed"
        case .untrusted: "untrusted"
        case .other: "other"
        }
    }

    /// What an operator can do about it.
    package var remedy: String {
        switch self {
        case .unreachable: "see whether Redis runs and whether rateLimit.redisURL leads to it"
        case .silent: "Redis or the network hangs: look at its processor, SLOWLOG and swap; or raise rateLimit.timeout"
        case .loading: "wait: it is used again when its data is read"
        case .readOnly: "rateLimit.redisURL leads to a replica: name the primary, or use redis+sentinel://"
        case .masterDown: "the replica has lost its primary: bring that back, or promote a replica"
        case .outOfMemory: "raise maxmemory: windows are small, but they must be written"
        case .login: "set the user and the password in rateLimit.redisURL, percent-encoded"
        case .maxClients: "raise maxclients, or see by redis-cli CLIENT LIST who holds so many connections"
        case .denied:
            "Redis is in protected mode: give it a password (requirepass, or ACL SETUSER default on >PASSWORD) and write "
                + "that in rateLimit.redisURL"
        case .permission: "grant the Redis user the keys, channels and commands listed in docs/redis.md"
        case .clusterDown: "slots have no server: see CLUSTER INFO"
        case .moved: "the server is part of a Redis Cluster: write redis+cluster:// in rateLimit.redisURL"
        case .unavailable:
            "see what the server says; it takes no writes now. A slot that stays ASK: redis-cli --cluster fix"
        case .wrongType: "another program uses one of our keys: give Sluice a database of its own"
        case .malformed: "see whether rateLimit.redisURL leads to a Redis server"
        case .untrusted: "see the reason; nothing is sent to a server that cannot prove who it is"
        case .other: "see what the server says"
        }
    }
}

/// What the log has told of lately: a key that is spoilt spoils each decision, and a line a minute says so.
package struct ToldLately<Subject: Hashable & Sendable>: Sendable {
    private var toldAt: [Subject: MonotonicTime] = [:]

    package init() {}

    /// Whether something is to be told of now.
    package mutating func mayTell(
        _ subject: Subject, again pause: TimeSpan = ToldCauses.pause, at now: MonotonicTime
    ) -> Bool {
        if let last = toldAt[subject], now - last < pause { return false }
        toldAt[subject] = now
        return true
    }
}

package typealias ToldCauses = ToldLately<RedisCause>

extension ToldCauses { package static var pause: TimeSpan { .seconds(60) } }

/// How often each cause got in the way, counted by all threads of a node. Failures are rare, or at least few a second:
/// a lock is cheap enough.
package final class RedisFailureCounts: Sendable {
    private struct Counts {
        var causes = [Int](repeating: 0, count: RedisCause.allCases.count)
        var dataLosses = 0
        var clockSteps = 0
    }

    private let counts = Mutex(Counts())

    package init() {}

    package func count(_ cause: RedisCause) { counts.withLock { $0.causes[cause.rawValue] += 1 } }
    package func countDataLoss() { counts.withLock { $0.dataLosses += 1 } }
    package func countClockStep() { counts.withLock { $0.clockSteps += 1 } }

    package func count(of cause: RedisCause) -> Int { counts.withLock { $0.causes[cause.rawValue] } }
    /// How often a server was found without the data that it had.
    package var dataLosses: Int { counts.withLock { $0.dataLosses } }
    package var clockSteps: Int { counts.withLock { $0.clockSteps } }
}

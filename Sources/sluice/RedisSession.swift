// Asks Redis one thing after the other and waits for each answer: for commands that speak without a node.

import Configuration
import EventLoop
import Gateway
import Hiredis
import LinuxIO
import Membership
import Primitives
import RedisClient

final class RedisSession: RedisRequester, RedisObserver {
    /// An answer, taken out of the connection's memory.
    enum Value {
        case text(String)
        case integer(Int64)
        case null
        case array([Value])

        var text: String? { if case .text(let text) = self { text } else { nil } }
        var elements: [Value] { if case .array(let elements) = self { elements } else { [] } }
        /// A number, also where it came as a text, as scores do.
        var integer: Int64? {
            switch self {
            case .integer(let number): number
            case .text(let text): Int64(text)
            case .null, .array: nil
            }
        }
    }

    struct Failure: Error, CustomStringConvertible {
        let description: String
        /// What the server itself said, where it refused.
        var refusal: String?
    }

    private let name: String
    private let loop: Loop
    private let finder: RedisFinder
    private let isOnCluster: Bool
    private var connection: RedisConnection!
    /// Of what was asked last, in its order; `nil` where the answer is still to come.
    private var outcomes: [Result<Value, Failure>?] = []
    private var waiting = 0
    /// Reads the next answer as it stands in the connection's memory.
    private var reader: ((Reply) -> Void)?
    private var lastFailure = RedisFailure.notConnected

    /// To connect, a failover included, and for each answer.
    private static let timeout = TimeSpan.seconds(5)

    convenience init(_ url: RedisURL, transactions: Bool = false) throws {
        try self.init(try topology(of: url), name: url.description, transactions: transactions)
    }

    /// - Parameters:
    ///   - name: of the server, for errors.
    ///   - transactions: whether it is of no use where they are not allowed.
    init(_ topology: RedisTopology, name: String, transactions: Bool = false) throws {
        self.name = name
        isOnCluster = topology.isCluster
        loop = try Loop(waker: try Waker())
        let seed = SystemClock.random64()
        finder = RedisFinder(
            topology, key: MembershipKeys.placed(MembershipKeys.nodes, onCluster: topology.isCluster),
            name: "sluice-command", loop: loop, resolver: Resolver(), seed: seed)
        connection = finder.connection(
            name: "sluice-command", transactions: transactions, seed: seed, observer: self)
        connection.start()
        try wait { connection.isReady }
    }

    /// A key of what the nodes share, as this Redis has it.
    func placed(_ name: String) -> String { MembershipKeys.placed(name, onCluster: isOnCluster) }

    func ask(_ words: String...) throws -> Value { try pipeline([words])[0].get() }

    /// Several commands in one write; each has an outcome of its own.
    ///
    /// - Parameter asking: on a cluster: whether they are for a slot that is only just moving to this server.
    func pipeline(_ commands: [[String]], asking: Bool = false) throws -> [Result<Value, Failure>] {
        begin(commands.count)
        for (index, words) in commands.enumerated() {
            if asking { connection.asking() }
            write(words)
            connection.sendCommand(self, token: UInt64(index))
        }
        return try answers()
    }

    /// One `MULTI … EXEC`; throws where any of its commands was refused.
    func transaction(_ commands: [[String]]) throws -> [Value] {
        begin(1)
        connection.beginTransaction()
        for words in commands { write(words) }
        connection.endTransaction(self, token: 0)
        return try answers()[0].get().elements
    }

    /// Who holds which slots, of a server of a cluster.
    func clusterMap() throws -> ClusterMap {
        var map: ClusterMap?
        let asked = connection.endpoint.location
        reader = { map = ClusterMap($0, askedAt: asked) }
        defer { reader = nil }
        _ = try ask("CLUSTER", "SLOTS")
        guard let map else { throw Failure(description: "\(name): CLUSTER SLOTS was answered by something else") }
        return map
    }

    /// Where the server is.
    var location: RedisEndpoint.Location { connection.endpoint.location }

    private func write(_ words: [String]) {
        connection.write { writer in for word in words { writer.add(word) } }
    }

    private func begin(_ count: Int) {
        outcomes = Array(repeating: nil, count: count)
        waiting = count
    }

    private func answers() throws -> [Result<Value, Failure>] {
        // What was written leaves at the end of a turn, which is not to wait for anything.
        loop.turn(waitMax: .zero)
        try wait { waiting == 0 }
        return try outcomes.map { outcome in
            guard let outcome else { throw Failure(description: "\(name): no answer") }
            return outcome
        }
    }

    private func settle(_ token: UInt64, _ outcome: Result<Value, Failure>) {
        guard let index = Int(exactly: token), outcomes.indices.contains(index), outcomes[index] == nil else { return }
        outcomes[index] = outcome
        waiting -= 1
    }

    private func wait(_ condition: () -> Bool) throws {
        loop.updateTime()
        let end = loop.now + Self.timeout
        while !condition() {
            guard loop.now < end else {
                let remedy = connection.isReady ? "" : " (\(lastFailure.remedy))"
                throw Failure(description: "\(name): \(lastFailure)\(remedy)")
            }
            loop.turn(waitMax: .milliseconds(20))
        }
    }

    // MARK: The connection

    func redisReplied(_ reply: Reply, token: UInt64) {
        reader?(reply)
        var index = 0
        var error: String?
        func value() -> Value {
            let i = index
            index += 1
            switch reply.kind(i) {
            case .bulk, .status: return .text(reply.text(i))
            case .error:
                error = error ?? reply.text(i)
                return .null
            case .integer: return .integer(reply.integer(i) ?? 0)
            case .null: return .null
            case .array: return .array((0..<(reply.elementCount(i) ?? 0)).map { _ in value() })
            }
        }
        let whole = value()
        settle(token, error.map { .failure(refused($0)) } ?? .success(whole))
    }

    func redisFailed(_ failure: RedisFailure, token: UInt64) {
        if case .refused(let text) = failure {
            settle(token, .failure(refused(text)))
        } else {
            settle(token, .failure(Failure(description: "\(name): \(failure)")))
        }
    }

    private func refused(_ text: String) -> Failure { Failure(description: "\(name): refused: \(text)", refusal: text) }

    func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {}
    func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) { lastFailure = failure }
    func redisSubscribed(_ connection: RedisConnection) {}
    func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {}
}

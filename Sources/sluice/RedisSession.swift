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
    }

    struct Failure: Error, CustomStringConvertible { let description: String }

    private let name: String
    private let loop: Loop
    private let finder: RedisFinder
    private let isOnCluster: Bool
    private var connection: RedisConnection!
    private var outcome: Result<Value, Failure>?
    private var lastFailure = RedisFailure.notConnected

    /// To connect, a failover included, and for each answer.
    private static let timeout = TimeSpan.seconds(5)

    init(_ url: RedisURL) throws {
        name = url.description
        let topology = try topology(of: url)
        isOnCluster = topology.isCluster
        loop = try Loop(waker: try Waker())
        let seed = UInt64.random(in: 0 ... .max)
        finder = RedisFinder(
            topology, key: MembershipKeys.placed(MembershipKeys.nodes, onCluster: topology.isCluster),
            name: "sluice-command", loop: loop, resolver: Resolver(), seed: seed)
        connection = finder.connection(name: "sluice-command", seed: seed, observer: self)
        connection.start()
        try wait { connection.isReady }
    }

    /// A key of what the nodes share, as this Redis has it.
    func placed(_ name: String) -> String { MembershipKeys.placed(name, onCluster: isOnCluster) }

    func ask(_ words: String...) throws -> Value {
        write(words)
        connection.sendCommand(self, token: 0)
        return try answer()
    }

    /// One `MULTI … EXEC`; throws where any of its commands was refused.
    func transaction(_ commands: [[String]]) throws -> [Value] {
        connection.beginTransaction()
        for words in commands { write(words) }
        connection.endTransaction(self, token: 0)
        return try answer().elements
    }

    private func write(_ words: [String]) {
        connection.write { writer in for word in words { writer.add(word) } }
    }

    private func answer() throws -> Value {
        outcome = nil
        try wait { outcome != nil }
        guard let outcome else { throw Failure(description: "\(name): no answer") }
        return try outcome.get()
    }

    private func wait(_ condition: () -> Bool) throws {
        loop.updateTime()
        let end = loop.now + Self.timeout
        while !condition() {
            guard loop.now < end else { throw Failure(description: "\(name): \(lastFailure)") }
            loop.turn(waitMax: .milliseconds(20))
        }
    }

    // MARK: The connection

    func redisReplied(_ reply: Reply, token: UInt64) {
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
        outcome = error.map { .failure(Failure(description: "\(name): refused: \($0)")) } ?? .success(whole)
    }

    func redisFailed(_ failure: RedisFailure, token: UInt64) {
        outcome = .failure(Failure(description: "\(name): \(failure)"))
    }

    func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {}
    func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) { lastFailure = failure }
    func redisSubscribed(_ connection: RedisConnection) {}
    func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {}
}

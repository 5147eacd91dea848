// What a node that follows begins with: the version in force in the cluster. Read before it listens, so that no request is
// answered by the node's own file in the meantime, be it a new node, one that has crashed, or the next process of one.

package import Configuration
import EventLoop
import Hiredis
import LinuxIO
package import Logging
import Membership
import Primitives
import RedisClient

/// A version of the cluster's configuration that a node goes by.
package struct Followed: Equatable, Sendable {
    package var version: Int
    package var text: String
    /// Of the text, as Redis has it.
    package var hash: String

    var name: String { "version \(version)" }

    init(_ found: ConfigurationVersion) {
        version = found.version
        text = found.text
        hash = found.hash
    }
}

extension Node {
    /// What a node has to begin with: the cluster's version in force, or, where there is none, or none to be had in time,
    /// its own file.
    package static func beginning(
        _ own: Configuration, text: String, _ source: ConfigurationSource, _ logger: Logger
    ) -> (configuration: Configuration, followed: Followed?) {
        guard own.config.from == .redis, let url = own.rateLimit?.redisURL else { return (own, nil) }
        switch FollowedReader.read(url, Resolver()) {
        case .nothing: return (own, nil)
        case .unknown(let reason):
            logger.warning(
                "the cluster's configuration cannot be read in time: this node begins with its own file",
                metadata: ["reason": "\(reason)"])
            return (own, nil)
        case .version(let followed):
            if let configuration = try? source.parse(
                followed.text, named: followed.name, over: text, examine: problems)
            {
                return (configuration, followed)
            }
            // It is tried again when the node runs, which then says why.
            logger.warning(
                "the cluster's configuration cannot be in force here: this node begins with its own file",
                metadata: ["version": "\(followed.version)"])
            return (own, nil)
        }
    }
}

/// Asks Redis once.
final class FollowedReader: RedisObserver, RedisRequester {
    enum Outcome {
        case version(Followed)
        /// Nobody has given one.
        case nothing
        case unknown(String)
    }

    private let isOnCluster: Bool
    private var connection: RedisConnection?
    private var outcome: Outcome?
    private var lastFailure: RedisFailure?

    /// A node that starts with a Redis that is gone must not wait for long; one that is there answers within milliseconds.
    private static let patience = TimeSpan.seconds(2)
    private static let current: UInt64 = 1
    private static let text: UInt64 = 2

    private init(isOnCluster: Bool) { self.isOnCluster = isOnCluster }

    /// Blocks until the answer is there, or for as long as is worth waiting.
    static func read(_ url: RedisURL, _ resolver: Resolver) -> Outcome {
        do {
            let redis = try topology(of: url)
            let reader = FollowedReader(isOnCluster: redis.isCluster)
            let loop = try Loop(waker: try Waker())
            let finder = RedisFinder(
                redis, key: reader.placed(MembershipKeys.nodes), name: "sluice-start-finder", loop: loop,
                resolver: resolver, seed: SystemClock.random64())
            let connection = finder.connection(
                name: "sluice-start", seed: SystemClock.random64(), observer: reader)
            reader.connection = connection
            let end = loop.now + patience
            connection.start()
            while reader.outcome == nil, loop.now < end { loop.turn(waitMax: .milliseconds(50)) }
            connection.close()
            finder.close()
            return reader.outcome
                ?? .unknown(reader.lastFailure.map { "\($0)" } ?? "no answer from Redis in \(patience)")
        } catch {
            return .unknown("\(error)")
        }
    }

    private func placed(_ name: String) -> String { MembershipKeys.placed(name, onCluster: isOnCluster) }

    private func ask(_ token: UInt64, _ words: String...) {
        connection?.write { writer in for word in words { writer.add(word) } }
        connection?.sendCommand(self, token: token)
    }

    func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {
        ask(Self.current, "GET", placed("sluice:config:current"))
    }

    func redisSubscribed(_ connection: RedisConnection) {}
    func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {}

    /// It tries again by itself.
    func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) { lastFailure = failure }

    func redisReplied(_ reply: Reply, token: UInt64) {
        if token == Self.current {
            guard let number = reply.integer(0), number > 0 else {
                outcome = .nothing
                return
            }
            ask(Self.text, "HGET", placed("sluice:config:versions"), "\(number)")
        } else if reply.kind(0) == .bulk, let found = ConfigurationVersion(json: reply.bytes(0)) {
            outcome = .version(Followed(found))
        } else {
            outcome = .unknown("the current version is not in Redis")
        }
    }

    func redisFailed(_ failure: RedisFailure, token: UInt64) {
        lastFailure = failure
        if case .refused = failure { outcome = .unknown("\(failure)") }
    }
}

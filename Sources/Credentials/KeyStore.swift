// The API keys in Redis, for commands: asks one thing, waits for the answer, and says what went wrong. Nodes never use it.

package import EventLoop
package import Hiredis
import LinuxIO
import Primitives
package import RedisClient

package struct KeyStoreError: Error, CustomStringConvertible {
    package let description: String
}

package final class KeyStore: RedisRequester, RedisObserver {
    package struct Entry: Equatable, Sendable {
        package var hash: String
        /// `nil` where what stands there cannot be read.
        package var record: APIKeyRecord?

        package var id: String { APIKeys.id(ofHash: hash) }
    }

    private let loop: Loop
    private let key: String
    private let user: String
    private var finder: RedisFinder!
    private var connection: RedisConnection!
    private var failure: RedisFailure?
    /// Why there is no connection.
    private var lost: RedisFailure?
    private var values: [String]?

    /// To connect and to answer.
    private static let patience = TimeSpan.seconds(5)
    /// Fields of one look; a server answers it in well under a millisecond.
    private static let pageSize: Int64 = 500

    package init(_ topology: RedisTopology, resolver: Resolver, seed: UInt64) throws {
        loop = try Loop(waker: try Waker())
        key = APIKeys.redisKey(onCluster: topology.isCluster)
        user = topology.user
        finder = RedisFinder(
            topology, key: key, name: "sluice-keys-finder", loop: loop, resolver: resolver, seed: seed)
        connection = finder.connection(name: "sluice-keys", transactions: true, seed: seed, observer: self)
        connection.start()
        let end = SystemClock.monotonic() + Self.patience
        while !connection.isReady {
            loop.turn(waitMax: .milliseconds(50))
            if SystemClock.monotonic() > end {
                throw KeyStoreError(description: Self.words(lost, user: user))
            }
        }
    }

    deinit {
        connection?.close()
        finder?.close()
    }

    // MARK: What can be done

    package func add(_ hash: String, _ record: APIKeyRecord) throws {
        _ = try asked {
            connection.beginTransaction()
            connection.write { writer in
                writer.add("HSET")
                writer.add(key)
                writer.add(hash)
                writer.add(record.json)
            }
            publish(hash)
            connection.endTransaction(self, token: 0)
        }
    }

    /// Whether it was there.
    package func revoke(_ hash: String) throws -> Bool {
        let values = try asked {
            connection.beginTransaction()
            connection.write { writer in
                writer.add("HDEL")
                writer.add(key)
                writer.add(hash)
            }
            publish(hash)
            connection.endTransaction(self, token: 0)
        }
        return values.first == "1"
    }

    /// Nodes hear of it at once.
    private func publish(_ hash: String) {
        connection.write { writer in
            writer.add("PUBLISH")
            writer.add(APIKeys.redisKey)
            writer.add(hash)
        }
    }

    package func list() throws -> [Entry] {
        var entries: [String: APIKeyRecord?] = [:]
        var cursor = "0"
        repeat {
            let values = try asked {
                connection.write { writer in
                    writer.add("HSCAN")
                    writer.add(key)
                    writer.add(cursor)
                    writer.add("COUNT")
                    writer.add(Self.pageSize)
                }
                connection.sendCommand(self, token: 0)
            }
            cursor = values.first ?? "0"
            let fields = Array(values.dropFirst())
            for index in stride(from: 0, to: fields.count - 1, by: 2) {
                entries[fields[index]] = .some(APIKeyRecord(json: fields[index + 1]))
            }
        } while cursor != "0"
        return entries.map { Entry(hash: $0.key, record: $0.value) }.sorted {
            ($0.record?.name ?? "", $0.hash) < ($1.record?.name ?? "", $1.hash)
        }
    }

    // MARK: Asking

    /// The values of the answer, arrays left out.
    private func asked(_ ask: () -> Void) throws -> [String] {
        values = nil
        failure = nil
        ask()
        let end = SystemClock.monotonic() + Self.patience
        while values == nil, failure == nil {
            loop.turn(waitMax: .milliseconds(50))
            if SystemClock.monotonic() > end { failure = .late("no answer within \(Self.patience)") }
        }
        guard let values, failure == nil else {
            throw KeyStoreError(description: Self.words(failure, user: user))
        }
        return values
    }

    /// Whom Redis has answered has reached it.
    private static func words(_ failure: RedisFailure?, user: String) -> String {
        guard let failure else { return "Redis cannot be reached: no answer" }
        let remedy = failure.remedy(user: user)
        if case .refused(let text) = failure { return "Redis refuses: \(text) (\(remedy))" }
        return "Redis cannot be reached: \(failure) (\(remedy))"
    }

    package func redisReplied(_ reply: Reply, token: UInt64) {
        var texts: [String] = []
        for index in 0..<reply.count {
            switch reply.kind(index) {
            case .error:
                failure = .refused(reply.text(index))
                return
            case .integer: texts.append(reply.integer(index).map { "\($0)" } ?? "")
            case .bulk, .status: texts.append(reply.text(index))
            case .null: texts.append("")
            case .array: break
            }
        }
        values = texts
    }

    package func redisFailed(_ failure: RedisFailure, token: UInt64) { self.failure = failure }
    package func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {}
    package func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        self.failure = failure
        lost = failure
    }
    package func redisSubscribed(_ connection: RedisConnection) {}
    package func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {}
}

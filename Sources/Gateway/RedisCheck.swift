// One connection to Redis, made as a node makes its own: for asking beforehand whether it would work.

package import Configuration
import EventLoop
import Hiredis
import LinuxIO
import Primitives
package import RedisClient

package final class RedisCheck: RedisObserver {
    private var outcome: String??

    /// As long as a person waits.
    private static let patience = TimeSpan.seconds(5)

    /// What stands between this machine and Redis; `nil` where nothing does.
    package static func problem(of url: RedisURL) -> String? {
        do {
            let check = RedisCheck()
            let loop = try Loop(waker: try Waker())
            let resolver = Resolver()
            let finder = RedisFinder(
                try topology(of: url), key: "", name: "sluice-check-finder", loop: loop, resolver: resolver, seed: 0)
            let connection = finder.connection(name: "sluice-check", transactions: true, seed: 1, observer: check)
            let end = loop.now + patience
            connection.start()
            while check.outcome == nil, loop.now < end { loop.turn(waitMax: .milliseconds(50)) }
            connection.close()
            finder.close()
            return check.outcome ?? "no answer in \(patience)"
        } catch {
            return "\(error)"
        }
    }

    package func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) { outcome = .some(nil) }
    package func redisSubscribed(_ connection: RedisConnection) {}
    package func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        if outcome == nil { outcome = .some("\(failure) (\(failure.remedy))") }
    }
    package func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {}
}

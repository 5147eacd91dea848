// What stands between this node and Redis, for the log and for those who ask.

import EventLoop
import Health
import Logging
import RedisClient

extension Control {
    func remedy(_ failure: RedisFailure) -> String {
        failure.remedy(user: generation.redis?.user, onCluster: generation.redis?.isCluster ?? false)
    }

    /// Whether Redis decides this node's limits.
    package var limitState: ClusterState {
        if lossRule == nil { .alone } else { limiterLost.isEmpty ? .reached : .lost }
    }

    /// Whether Redis serves this node in all that it is there for.
    package var isRedisUp: Bool { clusterState == .reached && limiterLost.isEmpty }

    // MARK: News

    func newsRefused(_ failure: RedisFailure) {
        failures.count(failure.cause)
        guard newsFailure != failure else { return }
        newsFailure = failure
        logger.warning(
            "news of the cluster are not heard: what the nodes share is read with each heartbeat instead",
            metadata: ["reason": "\(failure)", "remedy": "\(remedy(failure))"])
    }

    func newsHeard() {
        guard newsFailure != nil else { return }
        newsFailure = nil
        logger.notice("news of the cluster are heard again")
        // What was said since the last look.
        newsMissing()
    }

    func newsMissing() {
        health.reread(at: moment, into: &actions)
        perform()
        follower?.lookWithoutNews()
    }

    // MARK: Keys

    /// Workers find the same key at the same time: one line says it.
    func limitKeyFailed(_ key: String, _ failure: RedisFailure) {
        guard keysTold.mayTell(failure.cause, at: loop.now) else { return }
        let remedy =
            failure.cause == .wrongType
            ? "see what it is by redis-cli TYPE '\(key)', and make room by redis-cli DEL '\(key)'" : remedy(failure)
        logger.error(
            "a limit's key cannot be used: the loss rule decides for whom it counts",
            metadata: ["key": "\(key)", "reason": "\(failure)", "remedy": "\(remedy)"])
    }
}

// What the server refuses for one key, and what follows from it.

package import Primitives
package import RedisClient

package struct KeyFailure: Equatable, Sendable {
    package enum Consequence: Hashable, Sendable {
        /// The loss rule decides for whom the key counts.
        case undecided
        /// What was admitted while Redis was not asked has no entry.
        case notCharged
        /// What a request took that is refused keeps its entry.
        case notGivenBack
        /// A request that runs loses its slot to others.
        case notRenewed
        /// The window of the limit that the policy had before does not count.
        case notCarried
    }

    /// What is told once in a while.
    package struct Kind: Hashable, Sendable {
        package let cause: RedisCause
        package let consequence: Consequence
        /// The limit's keys without their subject, where what is refused is refused for all of them.
        let limit: String?

        /// What a user of Redis may not copy it may copy for nobody: it is told once for each change of a limit.
        package var pause: TimeSpan { limit == nil ? ToldCauses.pause : .max }
    }

    package let policy: String
    package let key: String
    /// The keys that were to be copied from, where it is that.
    package let former: [String]
    package let consequence: Consequence
    package let failure: RedisFailure
    package let kind: Kind

    init(
        _ policy: Policy, key: String, former: [String] = [], _ consequence: Consequence, _ failure: RedisFailure
    ) {
        self.policy = policy.name
        self.key = key
        self.former = former
        self.consequence = consequence
        self.failure = failure
        let isOfAll = consequence == .notCarried && failure.cause == .permission
        kind = Kind(cause: failure.cause, consequence: consequence, limit: isOfAll ? policy.keyPrefix : nil)
    }
}

// What is published, and how nodes go on that may not publish or listen: what is published only says what stands in the
// hashes, so a node that hears nothing reads them with each heartbeat, and what a mute one writes is found when the
// others read.

import EventLoop
import Primitives
import RedisClient

extension ClusterLink {
    /// How what others publish comes here.
    enum Hearing {
        /// Not yet, or not any more.
        case missing
        case heard
        /// Redis does not let us listen.
        case refused
    }

    /// How long nothing is published after it was refused: rights may be granted.
    private static let mutePause = TimeSpan.seconds(1)

    private static let publishing = "PUBLISH"

    private var isMute: Bool { loop.now < mutedUntil }

    /// Writes, and tells in the same transaction that there is something to read.
    func say(_ words: [[String]], _ purpose: Purpose) {
        let written = words.filter { $0[0] != Self.publishing }
        let isTold = written.count < words.count && !isMute
        transaction(isTold ? .saying(words, purpose) : purpose) {
            for command in isTold ? words : written { write(command[0], Array(command.dropFirst())) }
        }
    }

    /// Only tells.
    func publish(_ message: String, on channel: String) {
        guard commands.isReady, !isMute else { return }
        command(.message, Self.publishing, channel, message)
    }

    /// Nothing of it was written, because it was to be published too. Told once: other channels may be granted.
    ///
    /// - Returns: whether it goes on without.
    func goesOnMute(_ failure: RedisFailure) -> Bool {
        guard failure.isOfNews, commands.isReady else { return false }
        mutedUntil = loop.now + Self.mutePause
        complain(
            of: Self.publishing,
            "news cannot be published, the other nodes find them when they read: \(failure); "
                + failure.remedy(user: user), failure.cause)
        return true
    }
}

// Whether a node that is gone from Redis runs all the same: it is asked for a connection where its clients find it.

import EventLoop
import LinuxIO
import Logging
package import Membership
import Primitives
import RateLimiting

/// One attempt at a connection, over which nothing is said. The kernel takes connections for a process that hangs, too: so
/// this side is ended at once, and a process that runs ends the other.
private final class SilenceProbe: StreamHandler {
    private let target: SocketAddress
    private var input = ByteBuffer()
    private var finished: ((SilenceAnswer) -> Void)?

    init(_ target: SocketAddress, finished: @escaping (SilenceAnswer) -> Void) {
        self.target = target
        self.finished = finished
    }

    /// The loop's stream keeps it alive until it has finished.
    func start(on loop: Loop, timeout: TimeSpan) {
        do throws(SystemError) {
            try loop.connect(to: .tcp(target), handler: self).deadline = loop.now + timeout
        } catch {
            finished?(error.isConnectionRefused ? .refused : .none)
        }
    }

    func streamConnected(_ stream: Stream) {
        // Where nobody listens on a port of this host that the kernel gives out, it can be given to this very attempt, and
        // TCP lets a socket connect to itself.
        if stream.localAddress == target { finish(stream, .refused) } else { stream.shutdownWriting() }
    }

    func streamReadable(_ stream: Stream) {
        switch stream.receive(into: &input, room: 256) {
        case .endOfFile: finish(stream, .connected)
        case .wouldBlock: break
        // No node speaks first.
        case .bytes, .failed: finish(stream, .none)
        }
    }
    func streamDrained(_ stream: Stream) {}
    func streamFailed(_ stream: Stream, _ error: SystemError) {
        finish(stream, error.isConnectionRefused ? .refused : .none)
    }
    func streamDeadlinePassed(_ stream: Stream) { finish(stream, .none) }

    private func finish(_ stream: Stream, _ answer: SilenceAnswer) {
        stream.close()
        finished?(answer)
        finished = nil
    }
}

extension Control {
    /// After each heartbeat.
    func askSilent() {
        guard let link else { return }
        for question in membership.questions(mayAskLoopback: link.isOnThisHost, at: loop.now) {
            SilenceProbe(question.target) { [weak self] answer in self?.silenceAnswered(question, answer) }
                .start(on: loop, timeout: DataPathLimits.silenceTimeout)
        }
    }

    private func silenceAnswered(_ question: SilenceQuestion, _ answer: SilenceAnswer) {
        var events: [MembershipEvent] = []
        membership.answered(question, answer, into: &events)
        log(events)
        tellLimiters()
    }

    func log(_ events: [MembershipEvent]) {
        for event in events {
            switch event {
            case .joined, .left: logger.notice("\(event)")
            case .cutOff:
                let keepsShare = generation.limiterContext?.lossRule == .share
                logger.warning("\(event)\(keepsShare ? ": its share of each limit is kept free" : "")")
            case .sharedID where loop.now < ending.nameSharedUntil: break
            case .sharedID: logger.error("\(event): give each node its own --node-id")
            }
        }
    }

    /// Tells the limiters among how many a limit is divided, and how many do so without Redis.
    func tellLimiters() {
        let cutOff = membership.cutOffCount
        generation.limiterContext?.nodesChanged(
            running: membership.liveCount + cutOff, cutOff: cutOff, sharers: membership.sharers)
    }

    /// The nodes that run, those included that are cut off from Redis.
    package var runningMembers: [Member] { membership.members.filter { $0.isAlive || $0.isCutOff } }
    package var cutOffCount: Int { membership.cutOffCount }
}

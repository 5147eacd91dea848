package import LinuxIO
import Synchronization

/// Messages from other threads to a loop. Posting wakes the loop; the owner takes all of them in `woken()`.
package final class Mailbox<Message: Sendable>: Sendable {
    private let queue = Mutex<[Message]>([])
    private let waker: Waker

    package init(waker: Waker) { self.waker = waker }

    package func post(_ message: Message) {
        let first = queue.withLock { queue in
            queue.append(message)
            return queue.count == 1
        }
        if first { waker.wake() }
    }

    package func take() -> [Message] {
        queue.withLock { queue in
            let messages = queue
            queue.removeAll(keepingCapacity: true)
            return messages
        }
    }
}

package import LinuxIO
package import Primitives
import Synchronization

/// Resolves host names on a thread of its own, because getaddrinfo(3) blocks.
package final class Resolver: Sendable {
    package typealias Answer = Result<[IPAddress], ResolutionError>

    private struct Question {
        var host: String
        var deliver: @Sendable (Answer) -> Void
    }

    private let questions = Mutex<[Question]>([])
    private let arrived: Waiter

    package init() {
        let waiter = Waiter()
        arrived = waiter
        // The thread ends with the process; it holds nothing that needs an orderly end.
        _ = OSThread(name: "resolver") { [self] in
            while true {
                waiter.wait()
                while let question = questions.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) {
                    do throws(ResolutionError) {
                        question.deliver(.success(try HostNames.resolve(question.host)))
                    } catch {
                        question.deliver(.failure(error))
                    }
                }
            }
        }
    }

    /// Asks for a name's addresses. `deliver` runs on the resolver's thread: let it post to a mailbox.
    package func resolve(_ host: String, deliver: @escaping @Sendable (Answer) -> Void) {
        questions.withLock { $0.append(Question(host: host, deliver: deliver)) }
        arrived.signal()
    }
}

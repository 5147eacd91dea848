package import LinuxIO
package import Primitives
import Synchronization

/// Resolves host names on threads of its own, because getaddrinfo(3) blocks: for seconds, where no name server answers.
/// So that such a name holds up no other, each that is asked for has a thread, up to a bound.
package final class Resolver: Sendable {
    package typealias Answer = Result<[IPAddress], ResolutionError>
    package typealias Lookup = @Sendable (String) throws(ResolutionError) -> [IPAddress]

    private struct State {
        /// Names that no thread has taken up.
        var waiting: [String] = []
        /// Who wants to know, by name: also of those that are being looked up.
        var asked: [String: [@Sendable (Answer) -> Void]] = [:]
        var threads = 0
    }

    private let state = Mutex(State())
    private let arrived = Waiter()
    private let lookup: Lookup

    /// Names that nobody answers for take 10 s each as most systems are set up.
    static let threadsMax = 8

    package init(lookup: @escaping Lookup = HostNames.resolve) { self.lookup = lookup }

    /// Asks for a name's addresses. `deliver` runs on a thread of the resolver, or at once for an address: let it post to a
    /// mailbox.
    package func resolve(_ host: String, deliver: @escaping @Sendable (Answer) -> Void) {
        if let address = IPAddress(host) {
            deliver(.success([address]))
            return
        }
        let isThreadWanted = state.withLock { state in
            state.asked[host, default: []].append(deliver)
            guard state.asked[host]?.count == 1 else { return false }
            state.waiting.append(host)
            // Those that have a thread, and those that wait for one, are all in `asked`.
            guard state.asked.count > state.threads, state.threads < Self.threadsMax else { return false }
            state.threads += 1
            return true
        }
        if isThreadWanted {
            // It ends with the process; it holds nothing that needs an orderly end.
            _ = OSThread(name: "resolver") { [self] in work() }
        }
        arrived.signal()
    }

    private func work() {
        while true {
            arrived.wait()
            guard let host = state.withLock({ $0.waiting.isEmpty ? nil : $0.waiting.removeFirst() }) else { continue }
            let answer: Answer
            do throws(ResolutionError) {
                answer = .success(try lookup(host))
            } catch {
                answer = .failure(error)
            }
            for deliver in state.withLock({ $0.asked.removeValue(forKey: host) ?? [] }) { deliver(answer) }
        }
    }
}

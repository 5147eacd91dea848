// The addresses of backends' names: asked for before a configuration is in force, and again and again while it is.

import EventLoop
import LinuxIO
import Logging
import Primitives
import Synchronization

extension Backend {
    /// Asks for its addresses. A name that cannot be resolved keeps those that it had.
    ///
    /// - Parameter done: where it is given, hears when that has ended one way or the other, whoever asks already.
    func resolve(by resolver: Resolver, _ logger: Logger, then done: (@Sendable () -> Void)? = nil) {
        // A name server that does not answer must not gather questions.
        if isResolving.exchange(true, ordering: .relaxed), done == nil { return }
        resolver.resolve(host) { [self] answer in
            switch answer {
            case .success(let addresses):
                _ = replaceAddresses(addresses)
                if isNameless.exchange(false, ordering: .relaxed) { logger.notice("\(host) resolves again") }
            case .failure(let error):
                if !isNameless.exchange(true, ordering: .relaxed) {
                    let what = addresses.isEmpty ? "it has no address until it does" : "its last addresses stay"
                    logger.warning("\(host) does not resolve, \(what)", metadata: ["reason": "\(error.reason)"])
                }
            }
            isResolving.store(false, ordering: .relaxed)
            done?()
        }
    }
}

extension Node {
    /// How long a start waits for names. What is not known by then is waited for by its service alone.
    static let namePatience = TimeSpan.milliseconds(500)

    /// The first addresses of all backends that have none.
    ///
    /// - Parameter patience: the longest wait; `nil` for as long as the system's resolver takes.
    func resolveBackends(of generation: Generation, _ logger: Logger, patience: TimeSpan? = nil) {
        let backends = generation.context.services.flatMap(\.backends).filter { $0.addresses.isEmpty }
        let done = Waiter()
        for backend in backends { backend.resolve(by: basis.resolver, logger) { done.signal() } }
        let end = patience.map { SystemClock.monotonic() + $0 }
        for _ in backends {
            guard let end else {
                done.wait()
                continue
            }
            guard done.wait(atMost: max(.zero, end - SystemClock.monotonic())) else { break }
        }
        let unknown = backends.filter { $0.addresses.isEmpty && $0.isResolving.load(ordering: .relaxed) }
        for host in Set(unknown.map(\.host)).sorted() {
            logger.warning("no name server has answered for \(host) yet, it has no address until one does")
        }
    }
}

import Synchronization

/// A closure that one thread sets and others call.
///
/// A closure that is itself the value of a `Mutex` is wrapped twice more with each `withLock`, because a generic `inout`
/// wants another form of it than it has: 64 bytes and two calls that stay. Within a struct it keeps its form.
package final class Callback: Sendable {
    package typealias Body = @Sendable () -> Void

    private struct Holder {
        var body: Body
    }

    private let holder = Mutex<Holder?>(nil)

    package init() {}

    package func set(_ body: @escaping Body) { holder.withLock { $0 = Holder(body: body) } }

    /// `nil` until there is one.
    package var body: Body? { holder.withLock { $0?.body } }
}

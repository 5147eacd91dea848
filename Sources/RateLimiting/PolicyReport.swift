// What several policies said of one request: a value of a fixed size, so that it costs no allocation.

import Primitives

package struct PolicyReport: Sendable {
    package struct Item: Sendable {
        package var policy: UInt8 = 0
        package var isRefused = false
        package var isShadow = false
        /// What the request took of it, and gets back where another policy refuses.
        var cost: UInt16 = 1
        /// How many more would pass now; -1 where nobody knows.
        package var remaining: Int32 = -1
        /// Whole seconds until a slot frees, rounded up: a client that waits as told must not come too early.
        package var seconds: Int32 = 0
    }

    /// Policies of one request: one for each kind of key, and one to spare.
    package static let countMax = 8

    private var items = InlineArray<8, Item>(repeating: Item())
    package private(set) var count = 0
    /// The longest time until a policy that has refused lets one in.
    private var retryAfter: TimeSpan?

    package init() {}

    package subscript(index: Int) -> Item { items[index] }

    /// Whether a policy that is enforced has refused.
    package var isRefused: Bool { retryAfter != nil }
    /// Whether a policy in shadow mode would have refused.
    package private(set) var isRefusedInShadow = false
    /// The first of the leases that the request holds until it ends; -1 for none.
    package var lease: Int32 = -1

    package var verdict: Verdict {
        if let retryAfter { return .refuse(retryAfter: retryAfter) }
        return .admit(remaining: nil)
    }

    /// How many more of a policy would pass now; `nil` where nobody knows.
    package func remaining(_ index: Int) -> Int? {
        let item = items[index]
        guard item.remaining >= 0 else { return nil }
        return Int(item.remaining) + (isRefused && !item.isRefused ? Int(item.cost) : 0)
    }

    /// A policy that covers the request and was not asked, since another has refused.
    mutating func mention(_ policy: UInt8, isShadow: Bool) {
        guard count < Self.countMax else { return }
        items[count] = Item(policy: policy, isShadow: isShadow)
        count += 1
    }

    package mutating func add(_ verdict: Verdict, of policy: UInt8, isShadow: Bool, cost: UInt16 = 1) {
        guard count < Self.countMax else { return }
        var item = Item(policy: policy, isShadow: isShadow, cost: cost)
        switch verdict {
        case .admit(let remaining): if let remaining { item.remaining = Int32(clamping: remaining) }
        case .refuse(let wait):
            item.isRefused = true
            item.remaining = 0
            item.seconds = Int32(clamping: max(1, wholeSeconds(wait)))
            if isShadow { isRefusedInShadow = true } else { retryAfter = max(retryAfter ?? .zero, wait) }
        }
        items[count] = item
        count += 1
    }
}

/// Rounded up.
func wholeSeconds(_ span: TimeSpan) -> Int {
    Int(saturatingAdd(max(span, .zero).nanoseconds, 999_999_999) / 1_000_000_000)
}

// How often a failed request goes to another backend: the keys of `retries`.

package import Primitives

extension Configuration {
    package struct Retries: Hashable, Sendable {
        /// Other backends on which a request may be tried; 0: none.
        package let attempts: Int
        /// Retries for a hundred requests of the last ten seconds.
        package let budgetPercent: Int
        /// Retries in ten seconds whatever the share says, by each node.
        package let minimum: Int
        /// No try begins later than this after the request.
        package let within: TimeSpan
    }
}

extension Configuration.Retries {
    /// Reads the key `retries` of a service: a mapping, or a number, which means `attempts`.
    init(of service: MappingReader) {
        let value = service.take("retries")
        if let value, case .scalar = value.content {
            attempts =
                service.scalar(value, path: service.path(of: "retries"), Self.attempts) ?? Defaults.retryAttempts
            budgetPercent = Defaults.retryPercent
            minimum = Defaults.retryMinimum
            within = Defaults.retryWithin
            note(in: service)
            return
        }
        let map = service.section("retries")
        attempts = map.read("attempts", default: Defaults.retryAttempts, Self.attempts)
        budgetPercent = map.read("budget", default: Defaults.retryPercent, percent)
        minimum = map.read("minimum", default: Defaults.retryMinimum) { text throws(Invalid) in
            try integer(text, in: 0...Bounds.countMax)
        }
        within = map.read("within", default: Defaults.retryWithin) { text throws(Invalid) in
            try duration(text, in: .milliseconds(1)...Bounds.timeoutMax)
        }
        map.finish()
    }

    /// What a mere number leaves as it is.
    private func note(in service: MappingReader) {
        guard let log = service.diagnostics.log else { return }
        for (key, value) in [("budget", "\(budgetPercent)%"), ("minimum", "\(minimum)"), ("within", "\(within)")] {
            log.note("\(service.path(of: "retries")).\(key)", value, .standard)
        }
    }

    private static func attempts(_ text: String) throws(Invalid) -> Int {
        try integer(text, in: 0...Bounds.retryAttemptsMax)
    }
}

/// `20%`: a whole number of hundredths.
private func percent(_ text: String) throws(Invalid) -> Int {
    guard text.hasSuffix("%"), let number = try? integer(String(text.dropLast()), in: 0...100) else {
        throw Invalid("\(quoted(text)) is not a share; write 0% to 100%, such as 20%")
    }
    return number
}

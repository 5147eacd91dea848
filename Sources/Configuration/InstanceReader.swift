/// The list `instances` of one service: URLs, or mappings of `url` and `weight`.
struct InstanceReader {
    private let map: MappingReader

    init(_ map: MappingReader) {
        self.map = map
    }

    /// Those that are right; errors about the others are reported.
    func backends() -> [Configuration.Backend] {
        guard map.has("instances") else {
            map.reportMissing("instances", hint: "list at least one URL, such as http://localhost:8081")
            return []
        }
        guard let elements = map.takeList("instances", max: Bounds.instancesMax) else { return [] }
        if elements.isEmpty {
            map.report("an empty list; add at least one URL, such as http://localhost:8081", at: "instances")
            return []
        }
        var backends: [Configuration.Backend] = []
        var seen: [Configuration.Backend.Place: String] = [:]
        for (value, path) in elements {
            guard let backend = backend(value, path: path) else { continue }
            if let first = seen[backend.place] {
                map.diagnostics.report(
                    "\(quoted(backend.url)) is the same backend as \(first); remove one, or use a weight",
                    at: value.origin, key: path)
                continue
            }
            seen[backend.place] = path
            backends.append(backend)
        }
        checkWeights(backends)
        return backends
    }

    private func backend(_ value: Value, path: String) -> Configuration.Backend? {
        guard case .mapping = value.content else {
            return map.scalar(value, path: path) { text throws(Invalid) in
                try Configuration.Backend(parsing: text, weight: Defaults.weight)
            }
        }
        let inner = MappingReader(value, path: path, diagnostics: map.diagnostics)
        let weight = inner.read("weight", default: Defaults.weight) { text throws(Invalid) in
            try integer(text, in: 1...Bounds.weightMax)
        }
        let backend = inner.readRequired("url", hint: "write one such as http://localhost:8081") {
            text throws(Invalid) in
            try Configuration.Backend(parsing: text, weight: weight)
        }
        inner.finish()
        return backend
    }

    private func checkWeights(_ backends: [Configuration.Backend]) {
        let weights = backends.map(\.weight)
        let divisor = weights.reduce(0, greatestCommonDivisor)
        guard divisor > 0 else { return }
        let sum = weights.reduce(0, +) / divisor
        if sum > Bounds.weightSumMax {
            map.report(
                "the weights add up to \(sum) after division by their common divisor; at most "
                    + "\(Bounds.weightSumMax): use smaller weights in the same proportion", at: "instances")
        }
    }
}

private func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int {
    var (a, b) = (a, b)
    while b != 0 { (a, b) = (b, a % b) }
    return a
}

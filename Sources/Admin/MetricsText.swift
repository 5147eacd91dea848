// The text form of Prometheus, version 0.0.4: for each metric its help, its type, and a line for each set of labels.

import Primitives

enum MetricKind: String, Sendable { case counter, gauge, histogram }

/// A metric as it is documented and announced.
struct Metric: Sendable {
    /// In base units, which end the name: seconds, bytes; counters end in `_total`.
    var name: String
    var kind: MetricKind
    var help: String
    /// The names of its labels, in their order.
    var labels: [String] = []
}

struct MetricsText {
    private(set) var text = ""

    /// The buckets of latencies, in seconds: what Prometheus's own libraries use, and finer where a gateway lives.
    static let bounds: [(label: String, span: TimeSpan)] = [
        ("0.0001", .microseconds(100)), ("0.00025", .microseconds(250)), ("0.0005", .microseconds(500)),
        ("0.001", .milliseconds(1)), ("0.0025", .microseconds(2_500)), ("0.005", .milliseconds(5)),
        ("0.01", .milliseconds(10)), ("0.025", .milliseconds(25)), ("0.05", .milliseconds(50)),
        ("0.1", .milliseconds(100)), ("0.25", .milliseconds(250)), ("0.5", .milliseconds(500)), ("1", .seconds(1)),
        ("2.5", .milliseconds(2_500)), ("5", .seconds(5)), ("10", .seconds(10)), ("30", .seconds(30)),
    ]

    /// Announces a metric and writes its lines.
    mutating func write(_ metric: Metric, _ body: (inout Samples) -> Void) {
        var samples = Samples(metric: metric)
        body(&samples)
        guard !samples.text.isEmpty else { return }
        text += "# HELP \(metric.name) \(Self.escaped(metric.help, quotes: false))\n"
        text += "# TYPE \(metric.name) \(metric.kind.rawValue)\n"
        text += samples.text
    }

    /// The lines of one metric.
    struct Samples {
        let metric: Metric
        fileprivate var text = ""

        fileprivate init(metric: Metric) { self.metric = metric }

        mutating func add(_ value: Int, _ labels: String...) { line("", labels, nil, "\(value)") }
        mutating func add(_ value: Bool, _ labels: String...) { line("", labels, nil, value ? "1" : "0") }
        mutating func add(_ value: TimeSpan, _ labels: String...) { line("", labels, nil, MetricsText.seconds(value)) }

        mutating func add(_ summary: DurationSummary, _ labels: String...) {
            for (label, span) in MetricsText.bounds { line("_bucket", labels, label, "\(summary.count(upTo: span))") }
            line("_bucket", labels, "+Inf", "\(summary.count)")
            line("_sum", labels, nil, MetricsText.seconds(summary.sum))
            line("_count", labels, nil, "\(summary.count)")
        }

        private mutating func line(_ suffix: String, _ values: [String], _ bound: String?, _ value: String) {
            precondition(values.count == metric.labels.count, "\(metric.name) has other labels")
            var pairs = zip(metric.labels, values).map { "\($0)=\"\(MetricsText.escaped($1, quotes: true))\"" }
            if let bound { pairs.append("le=\"\(bound)\"") }
            text += metric.name + suffix
            if !pairs.isEmpty { text += "{\(pairs.joined(separator: ","))}" }
            text += " \(value)\n"
        }
    }

    /// Exact to the nanosecond, without a float's noise.
    static func seconds(_ span: TimeSpan) -> String {
        let magnitude = span.nanoseconds.magnitude
        var fraction = String(magnitude % 1_000_000_000)
        fraction = String(repeating: "0", count: 9 - fraction.count) + fraction
        while fraction.last == "0" { fraction.removeLast() }
        let whole = "\(span.nanoseconds < 0 ? "-" : "")\(magnitude / 1_000_000_000)"
        return fraction.isEmpty ? whole : "\(whole).\(fraction)"
    }

    /// What a client or a file named must not end the line or the label.
    static func escaped(_ text: String, quotes: Bool) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}

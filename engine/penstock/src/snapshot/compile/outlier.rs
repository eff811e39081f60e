//! Outlier detection, compiled.

use policy::OutlierSettings;

use super::time;
use crate::snapshot::schema::{OutlierCause, OutlierDoc};

/// `None`: nobody is judged.
pub(super) fn outlier(doc: &OutlierDoc) -> Option<OutlierSettings> {
    let defaults = OutlierSettings::default();
    // Zero is off.
    let if_on = |cause| doc.on.contains(&cause);
    (!doc.on.is_empty()).then(|| OutlierSettings {
        interval: time(&doc.every),
        consecutive_gateway: if if_on(OutlierCause::Gateway) { doc.gateway } else { 0 },
        consecutive_5xx: if if_on(OutlierCause::Errors) { doc.errors } else { 0 },
        success_rate_factor: if if_on(OutlierCause::SuccessRate) { defaults.success_rate_factor } else { 0 },
        latency_factor: if if_on(OutlierCause::Latency) { defaults.latency_factor } else { 0 },
        hosts_min: doc.endpoints_min,
        calls_min: doc.calls_min,
        base: time(&doc.eject_for),
        longest: time(&doc.eject_for_max),
        share_max: doc.share_max.0.0,
    })
}

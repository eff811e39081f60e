//! What `[[pool]] outlier` must mean.

use super::Meaning;
use crate::limits;
use crate::snapshot::report::Code;
use crate::snapshot::schema::{OutlierCause, OutlierDoc, PoolDoc};

impl Meaning<'_> {
    pub(super) fn outlier(&mut self, at: usize, pool: &PoolDoc) {
        let outlier = &pool.outlier;
        let is_compared = |cause: &OutlierCause| matches!(cause, OutlierCause::SuccessRate | OutlierCause::Latency);
        let compares = outlier.on.iter().position(is_compared);
        let known = pool.endpoints.iter().all(|endpoint| endpoint.0.source.is_literal());
        if let Some(index) = compares.filter(|_| known && pool.endpoints.len() < outlier.endpoints_min as usize) {
            let (few, least) = (pool.endpoints.len(), outlier.endpoints_min);
            let message = format!("{few} endpoints are not compared with each other: that takes {least}");
            self.report(
                Code::NoEffect,
                path!["pool", at, "outlier", "on", index],
                message,
                "lower `endpoints_min`, or judge by `gateway` or `5xx`",
            );
        }
        if outlier.on.is_empty() && *outlier != OutlierDoc::default() {
            self.report(
                Code::NoEffect,
                path!["pool", at, "outlier"],
                "nothing says what to judge by: nobody is ejected",
                "add on = [\"gateway\", \"success-rate\"]",
            );
        }
        for (key, number) in
            [("gateway", outlier.gateway), ("errors", outlier.errors), ("calls_min", outlier.calls_min)]
        {
            self.within(path!["pool", at, "outlier", key], number.into(), 1, u32::MAX.into());
        }
        let endpoints_max = limits::ENDPOINTS_MAX as u64;
        self.within(path!["pool", at, "outlier", "endpoints_min"], outlier.endpoints_min.into(), 2, endpoints_max);
        self.not_zero(path!["pool", at, "outlier", "eject_for"], &outlier.eject_for);
        if outlier.every.0.0 < limits::JUDGE_EVERY_MIN {
            let path = path!["pool", at, "outlier", "every"];
            self.report(Code::BadValue, path, "so short a time says nothing of anybody", "write at least \"1s\"");
        }
        if outlier.eject_for_max.0 < outlier.eject_for.0 {
            let path = path!["pool", at, "outlier", "eject_for_max"];
            let message = "the longest ejection is shorter than the first one";
            self.report(Code::Conflict, path, message, format!("write at least \"{}\"", outlier.eject_for.0));
        }
        if outlier.share_max.0.0 == 0 && !outlier.on.is_empty() {
            let path = path!["pool", at, "outlier", "share_max"];
            self.report(Code::NoEffect, path, "a share of 0%: nobody is ever ejected", "leave `on` out instead");
        }
    }
}

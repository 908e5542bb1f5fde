-- Money is summed for ever within a cell or a budget's period: some 900 bill lines of ten million dollars are more
-- nanodollars than a bigint holds. 38 digits hold 10^20 bill lines of the largest amount that is read. Whole numbers, as before.
alter table ledger_cells
    alter column cost_nanos type numeric(38, 0),
    alter column reported_cost_nanos type numeric(38, 0),
    alter column reconciled_cost_nanos type numeric(38, 0),
    alter column estimated_cost_nanos type numeric(38, 0);
alter table budget_status
    alter column amount_nanos type numeric(38, 0),
    alter column spent_nanos type numeric(38, 0);

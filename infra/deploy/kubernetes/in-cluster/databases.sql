-- One database each, on the one server: their backups and their sizes differ.
CREATE DATABASE ledger;
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
